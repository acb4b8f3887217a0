"""What a teacher is to the rest of extraction: a description, and tokens of images at named taps.

A tap is a place in the teacher where latents are read:

    block:i      the output of block i, counted from 1, before any final norm
    post_norm    the final norm of every token
    projected    the final norm, then the projection into the joint space: the published target

The first row of every tap is the class token; a teacher that pools in another way has there what it pools.

Whoever brings another kind of teacher writes a class with these two members; nothing else has to know.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from caev2.errors import TeacherError
from caev2.recipe import choose

Precision = Literal["fp32", "fp16", "bf16"]
"""How a teacher computes: `fp16` and `bf16` keep every LayerNorm in fp32, as OpenAI's CLIP does."""
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation of the pixels that a teacher was trained on."""
ClassRow = Literal["token", "mean", "map"]
"""What the first row is: the class token, the mean of the patches, or the query of an attention pooling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherDescription:
    """Everything about a teacher that decides its latents; part of a store's fingerprint."""

    name: str
    """Canonical, without any file path: `openclip:ViT-B-16-quickgelu`, `demo`."""
    sha256: str
    """Identity of the image tower's weights (`caev2.extract.teachers.identity`)."""
    image_px: int
    patch_px: int
    tokens: int
    """Tokens of one image: the class token and one per patch."""
    mean: tuple[float, float, float]
    """Subtracted from the RGB channels, in units of 0 .. 1."""
    std: tuple[float, float, float]
    precision: Precision
    widths: Mapping[str, int]
    """Every tap the teacher has, and the width of its latents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledTeacherDescription(TeacherDescription):
    """The same for a teacher whose first row is no class token at `post_norm` and `projected`.

    A type of its own, so that the fingerprints of stores whose teacher has a class token know nothing of it.
    """

    class_row: ClassRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What an architecture decides, before there are weights."""

    image_px: int
    patch_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    widths: Mapping[str, int]
    class_row: ClassRow

    @property
    def grid(self) -> int:
        """Patches a side."""
        return self.image_px // self.patch_px

    @property
    def tokens(self) -> int:
        """The class row and one row per patch."""
        return 1 + self.grid**2

    def describe(self, *, name: str, sha256: str, precision: Precision) -> TeacherDescription:
        """The description of a teacher with these weights."""
        facts: dict[str, Any] = {
            "name": name,
            "sha256": sha256,
            "image_px": self.image_px,
            "patch_px": self.patch_px,
            "tokens": self.tokens,
            "mean": self.mean,
            "std": self.std,
            "precision": precision,
            "widths": self.widths,
        }
        if self.class_row == "token":
            return TeacherDescription(**facts)
        return PooledTeacherDescription(**facts, class_row=self.class_row)


@runtime_checkable  # so that the tests may check it as a type
class Teacher(Protocol):
    """A frozen model that turns images into latents."""

    @property
    def description(self) -> TeacherDescription:
        """What decides the latents."""
        ...

    def tokens(
        self, images: UInt8[Tensor, "image size size 3"], taps: Sequence[str]
    ) -> dict[str, Float[Tensor, "image token width"]]:
        """The latents of all tokens, class token first, at each tap, in one forward pass.

        Args:
            images: Crops of `description.image_px` pixels a side, on the teacher's device.
            taps: Names out of `description.widths`.

        Returns:
            A tensor for each tap on the same device, in the precision the teacher computes in, without
            gradient.

        Raises:
            TeacherError: The images have another size or kind than the teacher takes.
            ConfigError: There is no such tap.
        """
        ...


def normalise(
    images: UInt8[Tensor, "image height width 3"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Tensor, "image 3 height width"]:
    """What a teacher sees: `(x / 255 - mean) / std` in fp32, to the bit as torchvision.transforms."""
    pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    return pixels.sub_(_per_channel(mean, pixels.device)).div_(_per_channel(std, pixels.device))


@functools.cache
def _per_channel(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """Brought to a device once: whoever copies to a GPU from ordinary memory waits for all that it was given before."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1)


def check_images(images: Tensor, image_px: int) -> None:
    """Refuse anything but uint8 crops of the right size."""
    wanted = (image_px, image_px, 3)
    if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != wanted:
        raise TeacherError(
            f"The teacher takes uint8 crops of shape (images, {image_px}, {image_px}, 3), but got "
            f"{images.dtype} of shape {tuple(images.shape)}. Make views of {image_px} pixels, or load the "
            "teacher for another size."
        )


def check_taps(taps: Sequence[str], widths: Mapping[str, int]) -> None:
    """Refuse a tap that the teacher does not have, offering the nearest."""
    for tap in taps:
        choose(tap, widths, "tap")


def default_precision(device: str) -> Precision:
    """`fp16` on a CUDA device, as published; `fp32` anywhere else."""
    return "fp16" if torch.device(device).type == "cuda" else "fp32"
