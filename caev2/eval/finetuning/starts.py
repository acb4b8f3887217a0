"""Whose weights fine-tuning starts from: a run, an official file, a random start, a teacher. None is loaded yet."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caev2.errors import CheckpointError, ConfigError
from caev2.eval.checks import check_weights
from caev2.eval.entrants import Role, RunEntry
from caev2.eval.file_entrants import FileEntry
from caev2.eval.finetuning.model import Backbone, tunable_encoder
from caev2.eval.finetuning.recipes import TunedModelSettings
from caev2.eval.finetuning.towers import teacher_backbone
from caev2.eval.subjects import load_student
from caev2.extract.teachers.catalog import load_teacher, parse_name
from caev2.extract.teachers.recorded import load_recorded_teacher
from caev2.pretrain.recipes import RECIPES
from caev2.pretrain.student.model import CAEv2, build
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.weights.official import import_official
from caev2.recipe import load


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Weights that are loaded when their turn comes."""

    role: Role
    name: str
    open: Callable[[TunedModelSettings], Backbone]
    """Loads them on the CPU, and makes of them what goes below a head."""


def from_run(entry: RunEntry, *, averaged: bool = False) -> Start:
    """The student of a run; with `averaged`, the moving average of its weights."""
    return Start(
        role="student",
        name="student, weights averaged" if averaged else "student",
        open=lambda settings: _student(
            load_student(entry.identity, entry.checkpoint, "cpu", averaged=averaged), settings
        ),
    )


def from_random_start_of(entry: RunEntry) -> Start:
    """The student of a run as it was before its first step."""
    return _fresh(entry.identity.model, entry.identity.recipe.get("seed", 0), "random start")


def from_random_start(recipe: str, seed: int) -> Start:
    """An untrained student of a pre-training recipe.

    Raises:
        ConfigError: There is no such recipe.
    """
    return _fresh(load(recipe, RECIPES).model, seed, f"random start of {recipe}")


def from_file(path: Path) -> Start:
    """An official CAE v2 checkpoint, whole or encoder only, or what `caev2 export` wrote.

    Raises:
        CheckpointError: There is no such file.
    """
    if not FileEntry.fits(path):
        raise CheckpointError(f"There is no run and no checkpoint at {path}. Give a run's folder or an official file.")

    def open_it(settings: TunedModelSettings) -> Backbone:
        model, _ = import_official(path)
        check_weights(model.encoder.state_dict().items(), str(path))
        return _student(model, settings)

    return Start(role="student", name=f"student of {path.name}", open=open_it)


def from_teacher(text: str) -> Start:
    """A teacher's tower.

    Raises:
        ConfigError: The name cannot be used.
    """
    parse_name(text)
    return Start(
        role="teacher",
        name=f"teacher {text}",
        open=lambda settings: teacher_backbone(load_teacher(text, precision="fp32", image_px=settings.image_px)),
    )


def from_teacher_of(entry: RunEntry) -> Start:
    """The tower of the teacher that a run learnt from."""
    recorded = entry.identity.target.get("teacher", {})

    def open_it(settings: TunedModelSettings) -> Backbone:
        image_px = settings.image_px or recorded.get("image_px")
        wanted = {**recorded, "image_px": image_px} if recorded else recorded
        return teacher_backbone(load_recorded_teacher(wanted, "cpu", precision="fp32"))

    return Start(role="teacher", name=" ".join(["teacher", recorded.get("name", "")]).strip(), open=open_it)


def _fresh(sizes: ModelSettings, seed: int, name: str) -> Start:
    return Start(role="random start", name=name, open=lambda settings: _student(build(sizes, seed), settings))


def _student(model: CAEv2, settings: TunedModelSettings) -> Backbone:
    sizes = model.settings
    if settings.image_px is not None and settings.image_px % sizes.patch_px:
        raise ConfigError(
            f"The student cuts images into patches of {sizes.patch_px} pixels, so model.image_px cannot be "
            f"{settings.image_px}. Give a multiple of {sizes.patch_px}, such as {sizes.patch_px * sizes.grid_size}."
        )
    return tunable_encoder(
        model.encoder,
        sizes,
        image_px=settings.image_px,
        drop_path=settings.drop_path,
        position_bias=settings.position_bias,
    )
