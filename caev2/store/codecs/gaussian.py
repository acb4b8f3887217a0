"""The best 2, 4, 16 or 256 levels for a unit normal variable (Lloyd, 1957; Max, 1960), and the nearest of them."""

import itertools
import math
from functools import cache
from statistics import NormalDist

import numpy as np
from jaxtyping import Float32, UInt8

_UNIT = NormalDist()
_COMPARED = 16  # up to so many levels, comparing with every threshold beats a binary search


@cache
def lloyd_max_levels(bits: int) -> Float32[np.ndarray, " level"]:
    """2^bits levels, ascending and symmetric: each the mean of what lies nearest to it. Read-only.

    Lloyd's iteration from Panter and Dite's companding start, where levels have the density of N(0, 3). It ends
    where nothing moves by 1e-12; 256 levels are then still a few 1e-6 from rest, which costs nothing measurable.
    """
    half = 2 ** (bits - 1)
    levels = [math.sqrt(3) * _UNIT.inv_cdf((half + place + 0.5) / (2 * half)) for place in range(half)]
    for _ in range(3000):
        bounds = [0.0, *((low + high) / 2 for low, high in itertools.pairwise(levels)), math.inf]
        moved = [_mean_between(low, high) for low, high in itertools.pairwise(bounds)]
        change = max(abs(old - new) for old, new in zip(levels, moved, strict=True))
        levels = moved
        if change < 1e-12:
            break
    positive = np.array(levels, dtype=np.float32)
    both = np.concatenate([-positive[::-1], positive])
    both.setflags(write=False)
    return both


def _mean_between(low: float, high: float) -> float:
    """The mean of a unit normal variable between two bounds."""
    mass = 0.5 * (math.erfc(low / math.sqrt(2)) - math.erfc(high / math.sqrt(2)))
    return (_UNIT.pdf(low) - (_UNIT.pdf(high) if high < math.inf else 0.0)) / mass


@cache
def distortion(bits: int) -> float:
    """Mean squared error of those levels at a unit normal variable; 1 for no bits."""
    if bits == 0:
        return 1.0
    levels = lloyd_max_levels(bits).astype(float)[2 ** (bits - 1) :]
    bounds = [0.0, *((levels[1:] + levels[:-1]) / 2), math.inf]
    masses = [math.erfc(a / math.sqrt(2)) - math.erfc(b / math.sqrt(2)) for a, b in itertools.pairwise(bounds)]
    return 1.0 - float(np.dot(masses, levels**2))  # levels are centroids: E[x · level] = E[level²]


def nearest_levels(values: Float32[np.ndarray, "channel token"], bits: int) -> UInt8[np.ndarray, "channel token"]:
    """The code of the level nearest to each value.

    Half way between two levels it is the one nearer to zero; zero itself, of either sign, is the first level above.
    """
    half = 2 ** (bits - 1)
    levels = lloyd_max_levels(bits)[half:]
    thresholds = (levels[1:] + levels[:-1]) / np.float32(2)
    size = np.abs(values)
    if 2 * half <= _COMPARED:
        above, beyond = np.zeros(values.shape, dtype=np.uint8), np.empty(values.shape, dtype=bool)
        for threshold in thresholds:
            above += np.greater(size, threshold, out=beyond).view(np.uint8)  # adding bools would convert each
    else:
        above = np.searchsorted(thresholds, size, side="left").astype(np.uint8)
    # half + above for what is positive, half − 1 − above for what is negative: −1 − above is ~above in uint8
    negative = np.negative((values < 0).view(np.uint8))
    return np.bitwise_xor(above, negative, out=above) + np.uint8(half)
