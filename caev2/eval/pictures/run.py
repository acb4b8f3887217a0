"""Pictures of a run: what its student, and its teacher, see in some images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from caev2.errors import ConfigError, SourceError, TeacherError
from caev2.eval.crops import Cropping
from caev2.eval.drawing import require_matplotlib
from caev2.eval.entrants import RunEntry
from caev2.eval.pca import joint_rgb
from caev2.eval.pictures.colours import heat, mark_patch
from caev2.eval.pictures.looks import Grid, Looks, look, look_of_teacher, read_crops
from caev2.eval.pictures.neighbours import Neighbour, class_tokens, find_neighbours
from caev2.eval.plots import plot_grid
from caev2.eval.run import RESIZE_RATIO
from caev2.eval.subjects import load_student, student_subject
from caev2.extract.teachers.recorded import load_recorded_teacher
from caev2.pretrain.student.model import CAEv2
from caev2.progress import Progress
from caev2.store.disk import writing
from caev2.store.images import Place, open_images
from caev2.store.sources.source import ImageSource

MOST_IMAGES = 48
"""Of one picture: all go through student and teacher at once, and lie below each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowSettings:
    """What is shown, and how."""

    patch: tuple[int, int] | None = None
    """Row and column, counted from 0, of the patch that all others are compared with; none: the middle one."""
    neighbours: Place | None = None
    """Where nearest images are looked for; none: nowhere."""
    neighbour_count: int = 5
    resize_share: float = RESIZE_RATIO
    """Short side over crop."""
    teacher: str | None = None
    """Where the weights of the run's teacher are; none: they are looked for by the digest that the run records."""
    averaged: bool = False
    """Show the moving average of the run's weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowResult:
    """What was drawn."""

    pictures: tuple[Path, ...]
    step: int
    """Of the run's checkpoint."""
    images: tuple[str, ...]
    """Names of the files, as they stand beside the lines."""
    patch: tuple[int, int]
    teacher: str | None
    """Whose patches are shown beside the student's, in one basis; none: nobody's."""
    teacher_not_available: str | None
    """Why nobody's."""
    nearest: dict[str, list[Neighbour]] = field(default_factory=dict)
    """By name of the file."""


def show(
    run: Path, images: Sequence[Path], out: Path, settings: ShowSettings, *, device: str, progress: Progress
) -> ShowResult:
    """Draw `patches.png`, `attention.png`, `similarity.png` and, if asked for, `neighbours.png`.

    Args:
        run: A run with a checkpoint.
        images: Image files.
        out: A folder, made if need be; pictures of these names are replaced.
        settings: What is shown.
        device: Where to compute.
        progress: Who is told.

    Raises:
        CheckpointError: There is no run, or no checkpoint.
        SourceError: An image is missing or cannot be decoded.
        ConfigError: There is no such patch, or matplotlib is missing.
        Caev2Error: The named teacher is not the run's.
    """
    if len(images) > MOST_IMAGES:
        raise ConfigError(
            f"A picture has a line for each image, and cannot have {len(images)}. Name {MOST_IMAGES} images or fewer."
        )
    require_matplotlib()
    entry = RunEntry.find(run)
    patch = _patch_within(settings.patch, entry.identity.model.grid_size)
    student = load_student(entry.identity, entry.checkpoint, device, averaged=settings.averaged)
    crops = _crops_for(entry, images, settings, student.settings.image_px)
    found = look(student, torch.from_numpy(crops).to(device))
    seen = _look_for_teacher(entry, images, settings, device)
    latents = {"student": found.patches} if seen.patches is None else {"teacher": seen.patches}
    if seen.patches is not None:
        latents["student"] = found.predicted
    pictures = {
        "patches": {"image": crops, **joint_rgb(latents)},
        "attention": {"image": crops, **_attention(found)},
        "similarity": {"image": mark_patch(crops, *patch, student.settings.grid_size), **_similarity(latents, patch)},
    }
    nearest: list[list[Neighbour]] = []
    if settings.neighbours is not None:
        source = open_images(settings.neighbours)
        nearest = _nearest(student, found, entry, images, source, settings, device, progress)
        pictures["neighbours"] = {"image": crops, **_neighbour_crops(nearest, source, entry, student, settings)}
    names = _name_lines(images)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        drawn = tuple(plot_grid(columns, names, out / f"{name}.png") for name, columns in pictures.items())
    return ShowResult(
        pictures=drawn,
        step=entry.step,
        images=names,
        patch=patch,
        teacher=seen.name,
        teacher_not_available=seen.reason,
        nearest=dict(zip(names, nearest, strict=False)),
    )


def _crops_for(entry: RunEntry, images: Sequence[Path], settings: ShowSettings, size_px: int) -> np.ndarray:
    return read_crops(images, size_px, round(size_px * settings.resize_share), entry.orientation)


def _patch_within(patch: tuple[int, int] | None, grid: int) -> tuple[int, int]:
    """The patch that was asked for, or the middle one.

    Raises:
        ConfigError: There is none.
    """
    row, column = patch or (grid // 2, grid // 2)
    if not (0 <= row < grid and 0 <= column < grid):
        raise ConfigError(
            f"There is no patch at row {row}, column {column}: this student has {grid} x {grid}, counted from 0."
        )
    return row, column


def _name_lines(images: Sequence[Path]) -> tuple[str, ...]:
    """What stands beside each line: the end of the file's name, told apart where two are the same."""
    short = [path.name if len(path.name) <= _MOST_LETTERS else "…" + path.name[1 - _MOST_LETTERS :] for path in images]
    return tuple(f"{name} ({place + 1})" if short.count(name) > 1 else name for place, name in enumerate(short))


_MOST_LETTERS = 24


class _Seen(NamedTuple):
    """What a teacher makes of the images, or why nothing is known of that."""

    patches: Grid | None = None
    name: str | None = None
    reason: str | None = None


def _look_for_teacher(entry: RunEntry, images: Sequence[Path], settings: ShowSettings, device: str) -> _Seen:
    """What the teacher of the run's store sees; a teacher that was named has to be it."""
    identity, named = entry.identity, settings.teacher
    try:
        teacher = load_recorded_teacher(identity.target.get("teacher", {}), device, [named] if named else [])
        crops = _crops_for(entry, images, settings, teacher.description.image_px)
        shown = torch.from_numpy(crops).to(device)
        patches = look_of_teacher(teacher, shown, identity.target["tap"], identity.recipe.get("loss", {}))
    except TeacherError as problem:
        if named is not None:
            raise
        return _Seen(reason=str(problem))
    except ConfigError as problem:  # nothing is wrong with the teacher: there is no basis in common
        return _Seen(reason=str(problem))
    return _Seen(patches, teacher.description.name)


def _attention(found: Looks) -> dict[str, np.ndarray]:
    """The mean over heads, then every head; each as bright as it can be."""
    heads = {f"head {number + 1}": found.attention[:, number] for number in range(found.attention.shape[1])}
    return {name: heat(values) for name, values in {"mean": found.attention.mean(1), **heads}.items()}


def _similarity(latents: dict[str, Grid], patch: tuple[int, int]) -> dict[str, np.ndarray]:
    """Cosines to one patch, on one scale for everybody: from the least of an image to 1."""
    cosines = {name: similarity(grid, patch) for name, grid in latents.items()}
    low = torch.stack([values.amin((1, 2)) for values in cosines.values()]).amin(0)
    return {name: heat(values, low, torch.ones_like(low)) for name, values in cosines.items()}


def similarity(grid: Grid, patch: tuple[int, int]) -> Tensor:
    """The cosine of every patch of an image to one of them."""
    chosen = grid[:, patch[0], patch[1]][:, None, None]
    return torch.nn.functional.cosine_similarity(grid, chosen, dim=-1)


def _nearest(
    student: CAEv2,
    found: Looks,
    entry: RunEntry,
    images: Sequence[Path],
    source: ImageSource,
    settings: ShowSettings,
    device: str,
    progress: Progress,
) -> list[list[Neighbour]]:
    subject = student_subject(student, "student")
    features = class_tokens(
        subject,
        source,
        resize_px=round(subject.size_px * settings.resize_share),
        orientation=entry.orientation,
        device=device,
        workers=1,
        progress=progress,
    )
    nearest = find_neighbours(images, found.class_token, source, features, settings.neighbour_count)
    if fewest := min(len(each) for each in nearest):
        return [each[:fewest] for each in nearest]
    raise SourceError(f"{source.root} holds no image but those that are shown. Give a larger folder.")


def _neighbour_crops(
    nearest: list[list[Neighbour]], source: ImageSource, entry: RunEntry, student: CAEv2, settings: ShowSettings
) -> dict[str, np.ndarray]:
    """The nearest image of each line, then the next, ..."""
    size_px = student.settings.image_px
    cropping = Cropping(
        source=source,
        size_px=size_px,
        resize_px=round(size_px * settings.resize_share),
        orientation=entry.orientation,
    )
    return {
        f"nearest {place + 1}": np.concatenate(
            [cropping.crops_of(range(each[place].image, each[place].image + 1)).numpy() for each in nearest]
        )
        for place in range(len(nearest[0]))
    }


def facts_of(result: ShowResult) -> dict[str, Any]:
    """What people are told."""
    facts: dict[str, Any] = {"pictures": ", ".join(map(str, result.pictures)), "step": result.step}
    facts["teacher"] = result.teacher or f"not available ({result.teacher_not_available})"
    facts["patch"] = f"row {result.patch[0]}, column {result.patch[1]}"
    for name, nearest in result.nearest.items():
        facts[f"nearest to {name}"] = ", ".join(f"{one.key} ({one.cosine:.3f})" for one in nearest)
    return facts
