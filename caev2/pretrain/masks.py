"""Which patches the student does not see: a pure function of (seed, epoch, row)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from caev2.errors import ConfigError
from caev2.store.draws import Draws

_PROBES = 64


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


def block_mask(draws: Draws, grid_size: int, settings: MaskSettings) -> Bool[np.ndarray, "grid grid"]:
    """Rectangles until exactly `count` patches are masked.

    A rectangle's area is uniform between `min_block_patches` and what is left (the bounds may be reversed),
    its aspect log-uniform; both sides stay below the grid's; its corner is uniform. It is taken if it masks
    at least one further patch and not more than are left. The published generator: BEiT's, without its early
    exit.
    """
    mask = np.zeros((grid_size, grid_size), dtype=bool)
    limit, left = math.log(settings.max_aspect), settings.count
    while left:
        area = draws.uniform(float(settings.min_block_patches), float(left))
        aspect = math.exp(draws.uniform(-limit, limit))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= grid_size or width >= grid_size:
            continue
        top, start = draws.integer(grid_size - height + 1), draws.integer(grid_size - width + 1)
        rectangle = mask[top : top + height, start : start + width]
        fresh = height * width - int(np.count_nonzero(rectangle))
        if 0 < fresh <= left:
            rectangle[:] = True
            left -= fresh
    return mask


def random_mask(draws: Draws, grid_size: int, settings: MaskSettings) -> Bool[np.ndarray, "grid grid"]:
    """`count` patches, every choice equally likely."""
    mask = np.zeros(grid_size**2, dtype=bool)
    mask[draws.permutation(grid_size**2)[: settings.count]] = True
    return mask.reshape(grid_size, grid_size)


_GENERATORS = {"block": block_mask, "random": random_mask}


def draw_masks(
    settings: MaskSettings,
    grid_size: int,
    seed: int,
    epoch: int,
    rows: Int[np.ndarray, " image"] | Iterable[int],
) -> tuple[Int[np.ndarray, "image visible"], Int[np.ndarray, "image masked"]]:
    """Indices of the visible and of the masked patches of each row, sorted.

    Call `settings.check(grid_size)` once before: settings that cannot end are not noticed here.
    """
    generate = _GENERATORS[settings.kind]
    masks = [generate(Draws("mask", seed, epoch, int(row)), grid_size, settings).ravel() for row in rows]
    stacked = np.stack(masks) if masks else np.zeros((0, grid_size**2), dtype=bool)
    return _indices(~stacked, grid_size**2 - settings.count), _indices(stacked, settings.count)


def _indices(chosen: Bool[np.ndarray, "image patch"], count: int) -> Int[np.ndarray, "image chosen"]:
    return np.nonzero(chosen)[1].astype(np.int64).reshape(len(chosen), count)
