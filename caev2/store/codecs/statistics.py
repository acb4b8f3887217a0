"""Means and spreads of directions over calibration rows, class token and patches apart.

Sums run over the same pieces in the same order in float64, by additions alone: the same rows give the same bits.
Zero vectors have no direction and do not count. A kind without any gets mean 0 and spread 0.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32

from caev2.store.codecs.directions import Piece, pieces

Rotate = Callable[[Float32[np.ndarray, "width token"]], Float32[np.ndarray, "coded token"]]


def average(
    rows: Float[np.ndarray, "row token width"], measure: Callable[[Piece], np.ndarray], lines: int
) -> Float[np.ndarray, "2 line"]:
    """The mean over the tokens of each kind of something that is measured at every token."""
    sums, counts = np.zeros((2, lines)), np.zeros((2, 1))
    for piece in pieces(rows):
        sums[piece.kind] += measure(piece)[:, piece.stored].sum(axis=1, dtype=np.float64)
        counts[piece.kind] += np.count_nonzero(piece.stored)
    return sums / np.maximum(counts, 1)


def mean_directions(rows: Float[np.ndarray, "row token width"]) -> Float32[np.ndarray, "2 width"]:
    """The mean unit vector of each kind."""
    return average(rows, lambda piece: piece.columns, rows.shape[-1]).astype(np.float32)


def spread_directions(
    rows: Float[np.ndarray, "row token width"],
    mean: Float32[np.ndarray, "2 width"],
    rotate: Rotate | None = None,
) -> Float32[np.ndarray, "2 coded"]:
    """The standard deviation of each channel about the mean, after a rotation."""

    def squares(piece: Piece) -> np.ndarray:
        centred = centre(piece.columns, mean[piece.kind])
        return np.square(centred if rotate is None else rotate(centred))

    lines = rows.shape[-1] if rotate is None else len(rotate(np.zeros((rows.shape[-1], 1), np.float32)))
    return np.sqrt(average(rows, squares, lines)).astype(np.float32)


def centre(
    columns: Float32[np.ndarray, "width token"], mean: Float32[np.ndarray, " width"]
) -> Float32[np.ndarray, "width token"]:
    """Columns less their mean."""
    return columns - mean[:, None]


def reciprocal(scale: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """1 / scale, and 0 where a channel is constant or all but: it is stored as its mean."""
    usable = scale > np.finfo(np.float32).tiny
    return np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=usable)
