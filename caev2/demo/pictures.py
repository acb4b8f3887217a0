"""The demo's pictures: what patches mean to teacher and student, how the loss fell, and the table as bars."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from caev2.demo.evaluations import Line
from caev2.demo.photographs import PICTURE_PHOTOGRAPHS, photograph
from caev2.demo.scenes import SCENE_PX
from caev2.eval.crops import evaluation_crop
from caev2.eval.pca import joint_rgb
from caev2.eval.plots import plot_accuracy, plot_curves, plot_grid
from caev2.extract.teachers.teacher import Teacher
from caev2.pretrain.learning.step import normalise_images
from caev2.pretrain.student.model import CAEv2
from caev2.pretrain.telling.log import read_log
from caev2.store.images import open_images

SCENES_SHOWN = 5


def draw_pictures(
    out: Path,
    scenes: Path,
    lines: Sequence[Line],
    teacher: Teacher,
    student: CAEv2,
    random_start: CAEv2,
    device: str,
) -> tuple[Path, ...]:
    """Write the pictures into `out` and return their paths."""
    files = tuple(out / f"{name}.png" for name in ("patches-scenes", "patches-photographs", "loss", "accuracy"))
    models = {"student": student, "random start": random_start}
    _plot_patches(files[0], _some_scenes(scenes), teacher, models, device)
    _plot_patches(files[1], _some_photographs(), teacher, models, device)
    plot_curves(read_log(out / "run"), files[2])
    plot_accuracy({line.name: line.shares for line in lines}, files[3])
    return files


def _some_scenes(scenes: Path) -> dict[str, np.ndarray]:
    """Scenes of as many classes, spread over the digits."""
    source = open_images(scenes, "val")
    labels = np.asarray(source.labels)
    chosen = [int(np.flatnonzero(labels == label)[0]) for label in sorted(set(source.labels))[::2][:SCENES_SHOWN]]
    return {source.classes[labels[n]]: evaluation_crop(source.read(n), SCENE_PX, SCENE_PX) for n in chosen}


def _some_photographs() -> dict[str, np.ndarray]:
    """Central squares of three real photographs, which nobody was trained on."""
    squares = {}
    for name in PICTURE_PHOTOGRAPHS:
        image = Image.fromarray(photograph(name))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        squares[name] = np.asarray(square.resize((SCENE_PX, SCENE_PX), Image.Resampling.BICUBIC))
    return squares


def _plot_patches(
    path: Path, images: Mapping[str, np.ndarray], teacher: Teacher, models: Mapping[str, CAEv2], device: str
) -> None:
    """One line an image: its pixels, then patch latents of teacher, student and random start.

    What a colour means is decided by teacher and student; the random start is shown in their colours.
    """
    crops = torch.from_numpy(np.stack(list(images.values()))).to(device)
    with torch.inference_mode():
        latents = {"teacher": teacher.tokens(crops, ["projected"])["projected"]}
        for name, model in models.items():
            latents[name] = predict_visible(model, crops)
    grids = {name: _as_grid(tokens) for name, tokens in latents.items()}
    colours = joint_rgb(grids, fitted_on=("teacher", "student"))
    plot_grid({"image": np.stack(list(images.values())), **colours}, list(images), path)


def predict_visible(model: CAEv2, crops: Tensor) -> Tensor:
    """A student's latents of all tokens in the teacher's basis, with every patch visible."""
    return model.head(model.projection(model.encoder(normalise_images(crops))))


def _as_grid(tokens: Tensor) -> Tensor:
    """Patch tokens as [image, row, column, width]."""
    side = round((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].unflatten(1, (side, side)).float().cpu()
