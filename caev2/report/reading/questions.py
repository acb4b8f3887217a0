"""The commands that ask the question of a result again: probe, segment, finetune. Pure."""

from collections.abc import Sequence
from typing import Any

from caev2.errors import ConfigError
from caev2.eval.finetuning.recipes import RECIPES as FINETUNE_RECIPES
from caev2.eval.probes.attentive import AttentiveSettings
from caev2.eval.probes.few_shot import FewShotSettings
from caev2.eval.probes.learner import OfficialSettings
from caev2.eval.probes.protocols import KnnSettings
from caev2.eval.run import RESIZE_RATIO
from caev2.eval.segmentation.training import SegmentationSettings
from caev2.pretrain.identity import RunIdentity
from caev2.recipe import to_mapping
from caev2.report.reading.commands import Command, options, sets, unknown
from caev2.report.reading.recipes import nearest_recipe
from caev2.report.reading.results import KNN, Result


def result_command(result: Result, identity: RunIdentity | None) -> Command:
    """What asks the question of a result again."""
    if result.kind == "probe":
        return _probe_command(result, identity)
    return _segment_command(result) if result.kind == "segment" else _finetune_command(result)


def _probe_command(result: Result, identity: RunIdentity | None) -> Command:
    content, kinds = result.content, _kinds_of(result)
    asked: dict[str, Any] = content["settings"]
    subjects, notes = _say_subjects(result, identity)
    words = [] if set(kinds) == {"knn", "linear"} else [word for kind in kinds for word in ("--kind", kind)]
    words += _say_settings(asked) + options([("--seed", content["seed"], 0)])
    resize, px = _common(content["subjects"], "resize_px"), _common(content["subjects"], "crop_px")
    if resize is not None and resize != (None if px is None else round(px * RESIZE_RATIO)):
        words += ["--resize", str(resize)]
    notes += _say_unreachable(asked.get("attentive"))
    return Command(makes=_say_makes(result), words=("probe", "RUN", "IMAGES", *subjects, *words), notes=tuple(notes))


def _say_settings(asked: dict[str, Any]) -> list[str]:
    """Options of the kinds of probes."""
    knn, shots = asked.get("knn", {}), asked.get("few-shot", {})
    attentive, official = asked.get("attentive", {}), asked.get("official-linear", {})
    default = KnnSettings(), FewShotSettings(), OfficialSettings()
    words = options(
        [("--k", knn.get("k"), None), ("--temperature", knn.get("temperature", 0.07), default[0].temperature)]
    )
    if shots and tuple(shots["shots"]) != default[1].shots:
        words += [word for number in shots["shots"] for word in ("--shots", str(number))]
    words += options([("--draws", shots.get("draws", default[1].draws), default[1].draws)])
    words += _epochs(attentive, official)
    batch, rate = official.get("batch_size"), official.get("base_lr", default[2].base_lr)
    return words + options([("--batch-size", batch, None), ("--base-lr", rate, default[2].base_lr)])


def _say_unreachable(attentive: dict[str, Any] | None) -> list[str]:
    """Settings that no option gives: they were chosen in Python."""
    if not attentive:
        return []
    reached = AttentiveSettings(epochs=attentive["epochs"], warmup_epochs=attentive["epochs"] / 10)
    others = {name: attentive.get(name) for name, value in to_mapping(reached).items() if attentive.get(name) != value}
    others.pop("token_limit_bytes", None)  # changes no number
    return [f"No option gives these settings of the attentive probe: {others}."] if others else []


def _epochs(attentive: dict[str, Any], official: dict[str, Any]) -> list[str]:
    """One option for both kinds, each with a default of its own."""
    for asked, default in ((attentive, AttentiveSettings().epochs), (official, OfficialSettings().epochs)):
        if asked and asked["epochs"] != default:
            return ["--epochs", str(asked["epochs"])]
    return []


def _kinds_of(result: Result) -> list[str]:
    """What was asked for, from the columns that it gave."""
    named = {"official linear": "official-linear", KNN: "knn"}
    kinds = [named.get(name, "few-shot" if name.endswith("-shot") else name) for name in result.evaluations]
    return list(dict.fromkeys([*kinds, *result.content["settings"]]))


def _common(subjects: Sequence[dict[str, Any]], key: str) -> int | None:
    """What all who were judged have in common."""
    found = {subject.get(key) for subject in subjects if subject.get("not_available") is None}
    return found.pop() if len(found) == 1 else None


def _say_subjects(result: Result, identity: RunIdentity | None) -> tuple[list[str], list[str]]:
    """Options that name who is judged beside the student, and what they cannot say."""
    roles = {entry.role for entry in result.entries}
    words, notes = [], []
    for subject in result.content["subjects"]:
        name = subject["name"]
        if subject["role"] == "pixels":
            words += ["--pixels", str(subject["crop_px"])]
        elif name.startswith("random start of "):
            words += ["--random-init", name.removeprefix("random start of ")]
        elif name == "student, weights averaged":
            words += ["--ema"]
        elif subject["role"] == "teacher" and identity is not None and not _is_own_teacher(subject, identity):
            words += ["--teacher", name.removeprefix("teacher ")]
    if "student" in roles and not roles & {"random start", "teacher"}:
        words += ["--only"]
    if identity is None:
        notes.append("What the run is cannot be read, so its own teacher and another one are not told apart.")
    return words, notes


def _is_own_teacher(subject: dict[str, Any], identity: RunIdentity) -> bool:
    recorded = identity.target.get("teacher", {})
    own = f"teacher {recorded.get('name', '')}".strip()
    return subject["name"] == own or (subject["sha256"] is not None and subject["sha256"] == recorded.get("sha256"))


def _segment_command(result: Result) -> Command:
    content, default = result.content, SegmentationSettings()
    asked = content["settings"]
    words = options(
        [
            ("--head", asked["head"], default.head),
            ("--ignore", content["ignore"], 255),
            ("--epochs", asked["epochs"], default.epochs),
            ("--batch-size", asked["batch_size"], default.batch_size),
            ("--lr", asked["lr"], default.lr),
            ("--channels", asked["channels"], default.channels),
            ("--seed", content["seed"], 0),
        ]
    )
    resize, px = _common(content["subjects"], "resize_px"), _common(content["subjects"], "crop_px")
    if resize != px:
        words += ["--resize", str(resize)]
    if not {"random start", "teacher"} & {entry.role for entry in result.entries}:
        words.append("--only")
    return Command(makes=_say_makes(result), words=("segment", "RUN", "IMAGES", *words))


def _finetune_command(result: Result) -> Command:
    entry = result.entries[0]
    origin = {"student, weights averaged": "average", "random start": "random"}.get(entry.name, entry.role)
    words = ["finetune", "RUN", "--train", "IMAGES", "--out", f"RUN/finetuned/{origin}"]
    words += [] if origin == "student" else ["--from", origin]
    try:
        name, settings = nearest_recipe(result.content["settings"]["finetune"], FINETUNE_RECIPES)
    except ConfigError as problem:
        return unknown(_say_makes(result), problem, *words)
    return Command(makes=_say_makes(result), words=(*words, "--recipe", name, *sets(settings)))


def _say_makes(result: Result) -> str:
    about = ", ".join(result.evaluations) or "nothing"
    who = f" of the {result.entries[0].role}" if result.kind == "finetune" else ""
    return f"{result.file}: {about}{who}, {result.val_images:,} images"
