"""The commands that make what is on the page again, every setting that is not the default in them. Pure."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from caev2.ablate.outcome import GridOutcome
from caev2.errors import ConfigError
from caev2.eval.finetuning.recipes import RECIPES as FINETUNE_RECIPES
from caev2.eval.probes.attentive import AttentiveSettings
from caev2.eval.probes.few_shot import FewShotSettings
from caev2.eval.probes.learner import OfficialSettings
from caev2.eval.probes.protocols import KnnSettings
from caev2.eval.run import RESIZE_RATIO
from caev2.eval.segmentation.training import SegmentationSettings
from caev2.extract.recipes import RECIPES as EXTRACT_RECIPES
from caev2.pretrain.identity import RunIdentity
from caev2.pretrain.recipes import RECIPES as PRETRAIN_RECIPES
from caev2.recipe import to_mapping
from caev2.report.reading.recipes import nearest_recipe
from caev2.report.reading.results import Result
from caev2.store.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One line for a shell, and what it makes."""

    makes: str
    words: tuple[str, ...]
    """After `caev2`; folders are called IMAGES, STORE, RUN, ..."""
    notes: tuple[str, ...] = ()
    """What the line cannot say."""

    @property
    def line(self) -> str:
        """As one types it."""
        return shlex.join(("caev2", *self.words))


def _sets(settings: Iterable[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _unknown(makes: str, problem: ConfigError, *words: str) -> Command:
    return Command(makes=makes, words=words, notes=(f"The recipe that was recorded is of another version: {problem}",))


def extract_command(identity: RunIdentity, manifest: Manifest | None) -> Command:
    """What makes the store of a run.

    Args:
        identity: Of the run.
        manifest: Of the store; none: what the run records is all that is known.
    """
    target, notes = identity.target, []
    recorded: dict[str, Any] = {
        "views": identity.views,
        "teacher": target["teacher"]["name"],
        "precision": target["teacher"].get("precision"),
        "taps": [target["tap"]],
        "codec": target.get("codec", "float16"),
        "from_crops": target.get("from_crops", False),
        "target_prefix": identity.recipe["target"].removesuffix(target["tap"].replace(":", "-")),
    }
    if manifest is None:
        notes.append(
            "The run does not record how many views its store has, nor how it keeps them: give the store with --store."
        )
    else:
        spec = manifest.spec
        same = [one for one in spec.targets.values() if one.teacher == target["teacher"]]
        recorded |= {
            "taps": [one.tap for one in same] or recorded["taps"], "view_count": manifest.views,
            "first_view": manifest.first_view, "crops": spec.crops, "layout": manifest.layout,
            "block_images": spec.block_images, "teacher_batch": spec.teacher_batch,
        }  # fmt: skip
        if len(same) < len(spec.targets):
            notes.append(
                "Other targets of this store came from other teachers: `caev2 store graft` puts them together."
            )
    try:
        name, settings = nearest_recipe(recorded, EXTRACT_RECIPES)
    except ConfigError as problem:
        return _unknown("the store", problem, "extract", "IMAGES", "STORE")
    return Command(
        makes="the store", words=("extract", "IMAGES", "STORE", "--recipe", name, *_sets(settings)), notes=tuple(notes)
    )


def pretrain_command(identity: RunIdentity, makes: str = "the run") -> Command:
    """What trains a run again."""
    if identity.imported:
        return Command(
            makes=makes,
            words=("import", "FILE", "RUN"),
            notes=("FILE holds the weights, which were trained elsewhere.",),
        )
    fresh, notes = identity.online == "fresh", []
    places = ["IMAGES", "RUN"] if fresh else ["STORE", "RUN", "--images", "IMAGES"]
    more = ["--online", identity.online] if identity.online else []
    if fresh:
        notes.append("Views and teacher are those that --views RECIPE names; without it, the recipe's own.")
    if identity.init_from is not None:
        more += ["--init-from", "WEIGHTS"]
        notes.append(f"WEIGHTS are those with the digest {identity.init_from}.")
    try:
        name, settings = nearest_recipe(identity.recipe, PRETRAIN_RECIPES)
    except ConfigError as problem:
        return _unknown(makes, problem, "pretrain", *places, *more)
    return Command(
        makes=makes, words=("pretrain", *places, "--recipe", name, *more, *_sets(settings)), notes=tuple(notes)
    )


def result_command(result: Result, identity: RunIdentity | None) -> Command:
    """What asks the question of a result again."""
    if result.kind == "probe":
        return _probe_command(result, identity)
    return _segment_command(result) if result.kind == "segment" else _finetune_command(result)


def _options(pairs: Iterable[tuple[str, Any, Any]]) -> list[str]:
    """Options whose value is not the default."""
    return [word for name, value, default in pairs if value != default for word in (name, str(value))]


def _probe_command(result: Result, identity: RunIdentity | None) -> Command:
    content, kinds = result.content, _kinds_of(result)
    asked: dict[str, Any] = content["settings"]
    knn, shots = asked.get("knn", {}), asked.get("few-shot", {})
    attentive, official = asked.get("attentive", {}), asked.get("official-linear", {})
    words = [] if set(kinds) == {"knn", "linear"} else [word for kind in kinds for word in ("--kind", kind)]
    words += _options(
        [("--k", knn.get("k"), None), ("--temperature", knn.get("temperature", 0.07), KnnSettings().temperature)]
    )
    if shots and tuple(shots["shots"]) != FewShotSettings().shots:
        words += [word for number in shots["shots"] for word in ("--shots", str(number))]
    words += _options([("--draws", shots.get("draws", 5), FewShotSettings().draws)])
    words += _epochs(attentive, official)
    words += _options(
        [
            ("--batch-size", official.get("batch_size"), None),
            ("--base-lr", official.get("base_lr", 0.1), OfficialSettings().base_lr),
            ("--seed", content["seed"], 0),
        ]
    )
    subjects, notes = _say_subjects(result, identity)
    resize, px = _common(content["subjects"], "resize_px"), _common(content["subjects"], "crop_px")
    if resize is not None and resize != (None if px is None else round(px * RESIZE_RATIO)):
        words += ["--resize", str(resize)]
    default = to_plain(
        AttentiveSettings(epochs=attentive.get("epochs", 30), warmup_epochs=attentive.get("epochs", 30) / 10)
    )
    if attentive and attentive != default:
        notes.append(f"Settings of the attentive probe that no option gives: {attentive}.")
    return Command(makes=_say_makes(result), words=("probe", "RUN", "IMAGES", *subjects, *words), notes=tuple(notes))


def to_plain(settings: Any) -> dict[str, Any]:
    """Settings as a result keeps them."""
    return to_mapping(settings)


def _epochs(attentive: dict[str, Any], official: dict[str, Any]) -> list[str]:
    """One option for both kinds, each with a default of its own."""
    for asked, default in ((attentive, AttentiveSettings().epochs), (official, OfficialSettings().epochs)):
        if asked and asked["epochs"] != default:
            return ["--epochs", str(asked["epochs"])]
    return []


def _kinds_of(result: Result) -> list[str]:
    """What was asked for, from the columns that it gave."""
    named = {"official linear": "official-linear"}
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
    words = _options(
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
        return _unknown(_say_makes(result), problem, *words)
    return Command(makes=_say_makes(result), words=(*words, "--recipe", name, *_sets(settings)))


def _say_makes(result: Result) -> str:
    about = ", ".join(result.evaluations) or "nothing"
    who = f" of the {result.entries[0].role}" if result.kind == "finetune" else ""
    return f"{result.file}: {about}{who}, {result.val_images:,} images"


def demo_command(demo: dict[str, Any]) -> Command:
    """All of a demo at once."""
    words = [*(["--quick"] if demo.get("quick") else []), *_options([("--seed", demo.get("seed", 0), 0)])]
    return Command(makes="everything here at once", words=("demo", "--out", "OUT", *words))


def grid_command(outcome: GridOutcome) -> Command:
    """All runs of a grid and its table."""
    words = ("ablate", "STUDY", outcome.grid, "OUT", *(["--quick"] if outcome.quick else []))
    return Command(makes=f"every number of the grid {outcome.grid}", words=words)
