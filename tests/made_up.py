"""A teacher of fifteen lines, a few images, and recipes that fit them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from caev2.extract.recipes import ExtractRecipe
from caev2.extract.teachers.teacher import TeacherDescription
from caev2.store.pixels.views import ViewSettings
from tests.made_up_pretrain import PATCH_PX, PRETRAIN, SIZE_PX

WIDTH = 6
TOKENS = 1 + (SIZE_PX // PATCH_PX) ** 2

EXTRACT = ExtractRecipe(views=ViewSettings(size_px=SIZE_PX), view_count=2, block_images=8, teacher_batch=4, workers=0)


class PatchMeans:
    """Latents are a fixed map of each patch's mean colour; the class token is their mean.

    Args:
        calls: A file that gets one line for each batch: how many views it held.
    """

    def __init__(self, calls: Path | None = None):
        self._calls = calls
        self._map = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
        self.description = TeacherDescription(
            name="patch-means", sha256="0" * 64, image_px=SIZE_PX, patch_px=PATCH_PX, tokens=TOKENS, mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0), precision="fp32", widths={"projected": WIDTH},
        )  # fmt: skip

    def tokens(self, images, taps):
        assert list(taps) == ["projected"]
        if self._calls:
            with self._calls.open("a") as file:
                file.write(f"{int(images.flatten(1).any(1).sum())}\n")  # padding is black
        patches = images.float().unfold(1, PATCH_PX, PATCH_PX).unfold(2, PATCH_PX, PATCH_PX).mean((4, 5))
        latents = (patches.flatten(1, 2) / 255 - 0.5) @ self._map
        return {"projected": torch.cat([latents.mean(1, keepdim=True), latents], 1)}


def make_photographs(folder: Path, count: int) -> Path:
    """Noise with some structure, in two classes."""
    random = np.random.default_rng(count)
    for number in range(count):
        place = folder / f"class-{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 255, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC).save(place / f"{number:03d}.png")
    return folder


__all__ = ["EXTRACT", "PRETRAIN", "PatchMeans", "make_photographs"]
