"""The commands that ask the question of a result again: probe, segment, finetune. Pure."""

import dataclasses
from collections.abc import Sequence
from pathlib import PurePosixPath
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
from caev2.report.reading.results import KNN, Result
from caev2.report.reproducing.commands import Command, options, say_digest, sets, unknown
from caev2.report.reproducing.recipes import nearest_recipe
from caev2.report.reproducing.subjects import (
    AVERAGED,
    RANDOM,
    STUDENT,
    is_own_teacher,
    named_file,
    names_recipe,
    say_recipe,
    say_subjects,
    say_teacher,
)
from caev2.report.reproducing.training import Places


def result_command(
    result: Result, identity: RunIdentity | None, *, latest: int | None = None, places: Places | None = None
) -> Command:
    """What asks the question of a result again.

    Args:
        result: Of a run.
        identity: Of the run; none: it cannot be read.
        latest: Step of the run's latest checkpoint, which is the one that is judged; none: there is no checkpoint.
        places: What folders are called.
    """
    places = places or Places()
    kinds = {"probe": _probe_command, "segment": _segment_command, "finetune": _finetune_command}
    command = kinds[result.kind](result, identity, places)
    notes = (*command.notes, *_say_step(result, latest), *_say_images(result, places))
    return dataclasses.replace(command, notes=notes)


def _say_step(result: Result, latest: int | None) -> list[str]:
    """Which checkpoint it was, where the command would take another one."""
    step = result.facts.get("step")
    if step is None or step == latest:
        return []
    there = "the run has none now" if latest is None else f"that is of step {latest:,} now"
    return [f"It judged the checkpoint of step {step:,}; the command takes the latest one, and {there}."]


def _say_images(result: Result, places: Places) -> list[str]:
    """Which images they were: folders have names of their own on every machine."""
    content = result.content
    digests = content.get("digests") or {
        "train images": content.get("train_digest"), "val images": content.get("val_digest")
    }  # fmt: skip
    said = ", ".join(f"{name} {say_digest(digest)}" for name, digest in digests.items() if digest)
    counts = f"{result.train_images:,} train and {result.val_images:,} val images"
    return [f"{places.judging} has {counts}" + (f"; digests: {said}" if said else ", whose digests were not recorded.")]


def _probe_command(result: Result, identity: RunIdentity | None, places: Places) -> Command:
    content, kinds = result.content, _kinds_of(result)
    asked: dict[str, Any] = content["settings"]
    subjects = say_subjects(result, identity)
    words = [] if set(kinds) == {"knn", "linear"} else [word for kind in kinds for word in ("--kind", kind)]
    words += _say_settings(asked) + options([("--seed", content["seed"], 0)])
    resize, px = _common(content["subjects"], "resize_px"), _common(content["subjects"], "crop_px")
    if resize is not None and resize != (None if px is None else round(px * RESIZE_RATIO)):
        words += ["--resize", str(resize)]
    return Command(
        makes=_say_makes(result),
        words=("probe", places.run, *subjects.places, places.judging, *subjects.options, *words),
        notes=(*subjects.notes, *_say_unreachable(asked.get("attentive"))),
    )


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


def _segment_command(result: Result, identity: RunIdentity | None, places: Places) -> Command:
    content, default = result.content, SegmentationSettings()
    asked, subjects = content["settings"], say_subjects(result, identity)
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
    if resize is not None and resize != px:
        words += ["--resize", str(resize)]
    return Command(
        makes=_say_makes(result),
        words=("segment", places.run, *subjects.places, places.judging, *subjects.options, *words),
        notes=tuple(subjects.notes),
    )


def _finetune_command(result: Result, identity: RunIdentity | None, places: Places) -> Command:
    start, notes = _say_start(result, identity, places)
    folder = PurePosixPath(result.file).parent
    words = ["finetune", *start, "--train", places.judging, "--out", f"{places.run}/{folder}"]
    try:
        name, settings = nearest_recipe(result.content["settings"]["finetune"], FINETUNE_RECIPES)
    except ConfigError as problem:
        return unknown(_say_makes(result), problem, *words)
    return Command(makes=_say_makes(result), words=(*words, "--recipe", name, *sets(settings)), notes=tuple(notes))


def _say_start(result: Result, identity: RunIdentity | None, places: Places) -> tuple[list[str], list[str]]:
    """Whose weights it started from, by name: two of one role need not be the same."""
    subject, notes = result.content["subjects"][0], []
    name = str(subject["name"])
    own = {STUDENT: [], AVERAGED: ["--from", "average"], RANDOM: ["--from", "random"]}
    if name in own:
        return [places.run, *own[name]], notes
    if names_recipe(name):
        return ["--random-init", say_recipe(name, notes)], notes
    if (file := named_file(name)) is not None:
        return ["FILE"], [f"FILE is {file}."]
    if identity is None or is_own_teacher(name, identity):
        return [places.run, "--from", "teacher"], notes
    return ["--teacher", say_teacher(name, subject.get("sha256"), notes)], notes


def _say_makes(result: Result) -> str:
    about = ", ".join(result.evaluations) or "nothing"
    who = f" of the {result.entries[0].name}" if result.kind == "finetune" else ""
    return f"{result.file}: {about}{who}, {result.val_images:,} images"
