"""Which patches the student does not see: a pure function of (seed, epoch, row)."""

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from caev2.errors import ConfigError
from caev2.store.streams import RowStreams

_PROBES = 64
_RARE = 2**64 - 2**16
"""A word below this is rejected by no `Draws.integer` of up to 65,536; so nearly none is looked at twice."""

_Rows = Int[np.ndarray, " image"] | Iterable[int]
_Masks = Bool[np.ndarray, "image patch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSettings:
    """How patches are masked."""

    kind: Literal["block", "random"] = "block"
    """`block`: rectangles, as published; `random`: single patches."""
    count: int
    """Masked patches of every image, exactly; 30, 49 and 98 of 196 for tiny, small and base."""
    min_block_patches: int = 16
    """Smallest area drawn for a rectangle while that many patches remain to be masked."""
    max_aspect: float = 1 / 0.3
    """Height over width of a rectangle lies between its inverse and this, uniform in its logarithm."""

    def __post_init__(self):
        if self.count < 1 or self.min_block_patches < 1 or self.max_aspect < 1:
            raise ConfigError(
                f"Masks cannot be drawn with count = {self.count}, min_block_patches = "
                f"{self.min_block_patches}, max_aspect = {self.max_aspect}. Each must be at least 1."
            )

    def check(self, grid_size: int):
        """Refuse what cannot be drawn on a grid.

        Raises:
            ConfigError: No patch would stay visible, or no rectangle could ever end the mask.
        """
        if self.count >= grid_size**2:
            raise ConfigError(
                f"{self.count} of {grid_size**2} patches cannot be masked: one at least must stay visible. "
                f"Give a count of at most {grid_size**2 - 1}."
            )
        if self.kind == "block" and (stuck := _stuck_at(self, grid_size)) is not None:
            raise ConfigError(
                f"Masking {self.count} patches of a {grid_size}x{grid_size} grid would never end: "
                f"with {stuck} left no rectangle fits (min_block_patches = {self.min_block_patches}, "
                f"max_aspect = {self.max_aspect:.4g}). Lower min_block_patches or raise max_aspect."
            )


def _stuck_at(settings: MaskSettings, grid_size: int) -> int | None:
    """How many patches may be left so that no area and aspect on a fine grid gives a rectangle small enough.

    A rectangle of no more patches than are left can always be laid over a free one; so if there is one for
    every number left, drawing ends.
    """
    limit = math.log(settings.max_aspect)
    aspect = np.exp(np.linspace(-limit, limit, _PROBES))
    for left in range(1, settings.count + 1):
        area = np.linspace(settings.min_block_patches, left, _PROBES)[:, None]
        height, width = np.round(np.sqrt(area * aspect)), np.round(np.sqrt(area / aspect))
        fits = (height < grid_size) & (width < grid_size) & (height * width <= left) & (height * width > 0)
        if not fits.any():
            return left
    return None


def _draw_blocks(word: Callable[[], int], grid_size: int, settings: MaskSettings) -> int:
    """Rectangles until exactly `count` patches are masked: a number whose bits are the patches, row-major.

    A rectangle's area is uniform between `min_block_patches` and what is left (the bounds may be reversed),
    its aspect log-uniform; both sides stay below the grid's; its corner is uniform. It is taken if it masks
    at least one further patch and not more than are left. The published generator: BEiT's, without its early
    exit.

    A mask takes about twenty tries, nearly all of them for the last few patches. So a try is kept cheap: numbers
    instead of arrays, and the same arithmetic as `Draws.uniform` and `Draws.integer` without a call for each.

    Args:
        word: Gives the next word of the row's stream.
        grid_size: Patches along one side.
        settings: How patches are masked.
    """
    corners = _corner_rectangles(grid_size)
    least, limit = float(settings.min_block_patches), math.log(settings.max_aspect)
    mask, left = 0, settings.count
    while left:
        area = least + (left - least) * ((word() >> 11) * 2.0**-53)
        aspect = math.exp(-limit + (limit + limit) * ((word() >> 11) * 2.0**-53))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= grid_size or width >= grid_size:
            continue
        tops, starts, top, start = grid_size - height + 1, grid_size - width + 1, word(), word()
        if top >= _RARE or start >= _RARE:
            top, start = _redraw(word, top, start, tops, starts)
        rectangle = corners[height][width] << (top % tops * grid_size + start % starts)
        fresh = (rectangle & ~mask).bit_count()
        if 0 < fresh <= left:
            mask |= rectangle
            left -= fresh
    return mask


def _redraw(word: Callable[[], int], top: int, start: int, tops: int, starts: int) -> tuple[int, int]:
    """Words in the place of those that `Draws.integer` would reject, of which the first come before the second."""
    if top >= 2**64 - 2**64 % tops:
        top, start = start, word()
        return _redraw(word, top, start, tops, starts)
    while start >= 2**64 - 2**64 % starts:
        start = word()
    return top, start


@functools.cache
def _corner_rectangles(grid_size: int) -> list[list[int]]:
    """By height and width, the rectangle in the first corner of the grid."""
    rows = [sum(1 << (grid_size * row) for row in range(height)) for height in range(grid_size)]
    return [[row * ((1 << width) - 1) for width in range(grid_size)] for row in rows]


def _block_masks(streams: RowStreams, rows: _Rows, grid_size: int, settings: MaskSettings) -> _Masks:
    size = -(-(grid_size**2) // 8)
    bits = [_draw_blocks(word, grid_size, settings).to_bytes(size, "little") for word in streams.readers(rows)]
    together = np.frombuffer(b"".join(bits), np.uint8).reshape(-1, size)
    return np.unpackbits(together, axis=1, count=grid_size**2, bitorder="little").astype(bool)


def _random_masks(streams: RowStreams, rows: _Rows, grid_size: int, settings: MaskSettings) -> _Masks:
    """`count` patches, every choice equally likely: the first ones of `Draws.permutation`."""
    order = np.argsort(streams.words(rows, grid_size**2), axis=1, kind="stable")
    masks = np.zeros(order.shape, dtype=bool)
    np.put_along_axis(masks, order[:, : settings.count], True, axis=1)
    return masks


_GENERATORS = {"block": _block_masks, "random": _random_masks}


def draw_masks(
    settings: MaskSettings, grid_size: int, seed: int, epoch: int, rows: _Rows
) -> tuple[Int[np.ndarray, "image visible"], Int[np.ndarray, "image masked"]]:
    """Indices of the visible and of the masked patches of each row, sorted.

    Call `settings.check(grid_size)` once before: settings that cannot end are not noticed here.
    """
    masks = _GENERATORS[settings.kind](RowStreams("mask", seed, epoch), rows, grid_size, settings)
    return _indices(~masks, grid_size**2 - settings.count), _indices(masks, settings.count)


def _indices(chosen: Bool[np.ndarray, "image patch"], count: int) -> Int[np.ndarray, "image chosen"]:
    return np.nonzero(chosen)[1].astype(np.int64, copy=False).reshape(len(chosen), count)
