"""Jitter of colours that the student alone sees: an ablation, for the published student sees what its teacher sees."""

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from caev2.store.draws import Draws
from caev2.store.pixels.jitter import CONTRAST, WholeImage, jitter
from caev2.store.pixels.views import draw_jitter


def jitter_crops(
    crops: UInt8[np.ndarray, "image size size 3"],
    strength: float,
    seed: int,
    epoch: int,
    step: int,
    rows: Int[np.ndarray, " image"],
) -> None:
    """Jitter brightness, contrast and saturation of crops in their place: a function of (seed, epoch, step, row).

    Order and factors are drawn as a view's are. Contrast blends with the crop's own mean, not with the image's.
    """
    for pixels, row in zip(crops, rows.tolist(), strict=True):
        order, factors = draw_jitter(Draws("student jitter", seed, epoch, step, row), strength)
        whole, place = WholeImage(Image.fromarray(pixels)), order.index(CONTRAST)
        before = whole.jitter(order[:place], factors)
        pixels[...] = np.asarray(jitter(before, order[place:], factors, whole.grey_mean(before)))
