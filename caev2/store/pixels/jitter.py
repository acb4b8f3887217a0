"""Jitter of colours: what torchvision's `adjust_*` do on PIL images, byte for byte, in fewer passes.

Brightness and contrast act on every byte by itself. What Pillow makes of the 256 values is therefore a table, and a
run of such steps is one table: one pass over the image instead of one or two for each step.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from PIL import Image

BRIGHTNESS, CONTRAST, SATURATION = range(3)

_EVERY_BYTE = Image.frombytes("L", (256, 1), bytes(range(256)))


def jitter(image: Image.Image, steps: Sequence[int], factors: Sequence[float], grey_mean: int) -> Image.Image:
    """Do some steps of jitter, in order.

    Args:
        image: RGB.
        steps: `BRIGHTNESS`, `CONTRAST` or `SATURATION`.
        factors: Of these three; a step with factor 1 is none.
        grey_mean: What contrast blends with.
    """
    table = _EVERY_BYTE
    for step in steps:
        if factors[step] == 1.0:
            continue
        if step == SATURATION:
            image, table = _saturate(_look_up(image, table), factors[step]), _EVERY_BYTE
        else:
            level = grey_mean if step == CONTRAST else 0
            table = Image.blend(Image.new("L", table.size, level), table, factors[step])
    return _look_up(image, table)


def _look_up(image: Image.Image, table: Image.Image) -> Image.Image:
    return image if table is _EVERY_BYTE else image.point(list(table.tobytes()) * 3)


def _saturate(image: Image.Image, factor: float, grey: Image.Image | None = None) -> Image.Image:
    """Blend an image with its grey version, as `ImageEnhance.Color` does."""
    grey = image.convert("L") if grey is None else grey
    return Image.blend(Image.merge("RGB", (grey, grey, grey)), image, factor)


class WholeImage:
    """An image that several views are drawn of; keeps what they share.

    Args:
        image: RGB.
    """

    def __init__(self, image: Image.Image):
        self.image = image

    @cached_property
    def _grey(self) -> Image.Image:
        return self.image.convert("L")

    @cached_property
    def _mean(self) -> int:
        return _mean_level(self._grey)

    def jitter(self, steps: Sequence[int], factors: Sequence[float]) -> Image.Image:
        """Do the steps that come before contrast."""
        if steps and steps[0] == SATURATION and factors[SATURATION] != 1.0:
            saturated = _saturate(self.image, factors[SATURATION], self._grey)
            return jitter(saturated, steps[1:], factors, 0)
        return jitter(self.image, steps, factors, 0)

    def grey_mean(self, jittered: Image.Image) -> int:
        """The mean grey level of what `jitter` made of the image: what `ImageEnhance.Contrast` would blend with."""
        return self._mean if jittered is self.image else _mean_level(jittered.convert("L"))


def _mean_level(grey: Image.Image) -> int:
    """Pillow rounds so; the sum is an integer, and exact."""
    total = int(np.asarray(grey).sum(axis=1, dtype=np.uint32).sum(dtype=np.uint64))
    return int(total / (grey.width * grey.height) + 0.5)
