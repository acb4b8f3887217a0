"""What is drawn on a scene: scikit-learn's handwritten digits and four shapes, enlarged from 8×8 cells."""

from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int
from PIL import Image

from caev2.errors import ConfigError
from caev2.store.draws import Draws

Split = Literal["train", "val"]

_GLYPH_CELLS = 8
_MARGIN_CELLS = 1  # empty cells around a glyph, so that strokes at its edge are not cut off
_VAL_GLYPHS = 450  # of 1797: a quarter, as scikit-learn's own split would take
_INK_FROM, _INK_TO = 0.35, 0.65  # smoothstep around half coverage: edges one or two pixels wide at 48 pixels
_RIM_FROM, _RIM_TO = 0.1, 0.3  # the outline begins where the bicubic slope outside the ink does


@cache
def digit_glyphs() -> tuple[Float32[np.ndarray, "glyph 8 8"], Int[np.ndarray, "glyph"]]:
    """All 1797 handwritten digits, coverage in 0 .. 1, and the digit each one is.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"demo: the handwritten digits are in scikit-learn, which cannot be imported ({missing}); "
            'install the extras of the demo: pip install "caev2[demo,plots]"'
        ) from missing
    cells, digits = load_digits(return_X_y=True)
    return (np.asarray(cells).reshape(-1, 8, 8) / 16).astype(np.float32), np.asarray(digits)


@cache
def glyphs_of_split(split: Split) -> tuple[tuple[int, ...], ...]:
    """For each digit the sorted indices of its glyphs that `split` may draw; the two splits share none."""
    _, digits = digit_glyphs()
    order = Draws("glyphs of the demo", "train and val").permutation(len(digits))
    chosen = np.sort(order[:_VAL_GLYPHS] if split == "val" else order[_VAL_GLYPHS:])
    return tuple(tuple(int(glyph) for glyph in chosen[digits[chosen] == digit]) for digit in range(10))


def _shape_glyphs() -> Float32[np.ndarray, "shape 8 8"]:
    y, x = np.mgrid[:_GLYPH_CELLS, :_GLYPH_CELLS] - 3.5
    disk = x**2 + y**2 < 14
    square = (abs(x) < 3) & (abs(y) < 3)
    triangle = (abs(x) < (y + 4) / 2) & (abs(y) < 4)
    cross = (np.minimum(abs(x), abs(y)) < 1) & (np.maximum(abs(x), abs(y)) < 4)
    return np.stack([disk, square, triangle, cross]).astype(np.float32)


SHAPE_GLYPHS = _shape_glyphs()
"""Disk, square, triangle and cross, drawn in the digits' own 8×8 cells."""


def _smoothstep(
    value: Float32[np.ndarray, "height width"], low: float, high: float
) -> Float32[np.ndarray, "height width"]:
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def enlarge_glyph(
    glyph: Float32[np.ndarray, "8 8"],
    matrix: Float[np.ndarray, "2 2"],
    centre: tuple[float, float],
    size: tuple[int, int],
) -> tuple[Float32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
    """Ink and rim of a glyph, opacities in 0 .. 1, by one bicubic affine map and two soft thresholds.

    The rim lies under the ink and reaches further out: painted dark, it leaves an outline that keeps the
    glyph legible on any ground.

    Args:
        glyph: Coverage of its 8×8 cells.
        matrix: Maps an offset from `centre` in pixels (x, y) to an offset from the glyph's middle in cells.
        centre: The glyph's middle on the tile (x, y), in pixels from its top left corner.
        size: Width and height of the tile, in pixels.
    """
    padded = Image.fromarray(np.pad(glyph, _MARGIN_CELLS))
    (a, b), (c, d) = matrix.tolist()
    x, y = centre
    middle = _GLYPH_CELLS / 2 + _MARGIN_CELLS
    affine = (a, b, middle - a * x - b * y, c, d, middle - c * x - d * y)
    tile = np.asarray(padded.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC))
    return _smoothstep(tile, _INK_FROM, _INK_TO), _smoothstep(tile, _RIM_FROM, _RIM_TO)
