"""What a student, and its teacher, make of a few crops."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from caev2.errors import ConfigError, ImageUndecodable, SourceError, StoreMismatch
from caev2.eval.crops import evaluation_crop
from caev2.eval.pictures.attention import class_attention
from caev2.extract.teachers.teacher import Teacher
from caev2.pretrain.learning.step import normalise_images
from caev2.pretrain.learning.target_norm import TargetForm
from caev2.pretrain.student.model import CAEv2
from caev2.store.pixels.decode import Orientation
from caev2.store.sources.folder import read_file

Grid = Float[Tensor, "image row column width"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What a student makes of crops."""

    patches: Grid
    """The encoder's patch tokens after the final norm."""
    predicted: Float[Tensor, "image row column target_width"]
    """The same patches as the student predicts the teacher's latents."""
    attention: Float[Tensor, "image head row column"]
    """From the class token to every patch, in the last block."""
    class_token: Float[Tensor, "image width"]


def read_crops(
    paths: Sequence[Path], size_px: int, resize_px: int, orientation: Orientation
) -> UInt8[np.ndarray, "image size size 3"]:
    """The centres of some image files, as evaluation sees them.

    Raises:
        SourceError: One is missing or cannot be decoded.
    """
    return np.stack([_read_crop(path, size_px, resize_px, orientation) for path in paths])


def _read_crop(path: Path, size_px: int, resize_px: int, orientation: Orientation) -> UInt8[np.ndarray, "size size 3"]:
    try:
        return evaluation_crop(read_file(path), size_px, resize_px, orientation)
    except ImageUndecodable as problem:
        raise SourceError(f"{path} cannot be shown: {problem}. Give an image file.") from None


@torch.inference_mode()
def look(student: CAEv2, crops: UInt8[Tensor, "image size size 3"]) -> Looks:
    """What a student makes of crops, all patches visible."""
    images = normalise_images(crops)
    tokens = student.encoder(images)
    attention = class_attention(student.encoder, images)[:, :, 1:]
    side = student.settings.grid_size
    return Looks(
        patches=as_grid(tokens),
        predicted=as_grid(student.head(student.projection(tokens))),
        attention=attention.unflatten(2, (side, side)).float().cpu(),
        class_token=tokens[:, 0].float().cpu(),
    )


@torch.inference_mode()
def look_of_teacher(
    teacher: Teacher, crops: UInt8[Tensor, "image size size 3"], tap: str, loss: Mapping[str, Any]
) -> Grid:
    """A teacher's patch latents, in the form that the student learns to predict.

    Args:
        teacher: Of the run's store.
        crops: At the teacher's size, on its device.
        tap: Where the run's target was read.
        loss: The run's settings of the loss.

    Raises:
        ConfigError: The student predicts something that has no basis in common with the teacher's latents.
    """
    norm = loss.get("target_norm", "l2")
    if norm == "whiten":
        raise ConfigError("the student learns whitened latents, whose statistics are the store's")
    if loss.get("visible_weight", 1.0) == 0:
        raise ConfigError("the student's loss leaves visible patches out, so it does not predict them")
    return as_grid(TargetForm(norm)(teacher.tokens(crops, [tap])[tap]))


def as_grid(tokens: Float[Tensor, "image token width"]) -> Grid:
    """Patch tokens in their places, in fp32 on the CPU.

    Raises:
        StoreMismatch: They fill no square.
    """
    patches = tokens.shape[1] - 1
    side = round(patches**0.5)
    if side * side != patches:
        raise StoreMismatch(f"{patches} patches are no square, so they cannot be shown as a picture.")
    return tokens[:, 1:].unflatten(1, (side, side)).float().cpu()
