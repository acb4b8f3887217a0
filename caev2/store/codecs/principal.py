"""Principal axes of directions, for the codecs that spend their bytes where the variance is.

Unlike the rest of a codec's tables, these go through BLAS and LAPACK: another machine or number of threads may give
other last bits. They are computed once, by the unit that calibrates, and loaded by everyone else.
"""

import numpy as np
from jaxtyping import Float, Float32, Float64

from caev2.store.codecs.directions import pieces
from caev2.store.codecs.statistics import centre


def principal_axes(
    rows: Float[np.ndarray, "row token width"], mean: Float32[np.ndarray, "2 width"]
) -> tuple[Float64[np.ndarray, "width width"], Float64[np.ndarray, "2 width"]]:
    """Axes by falling variance, one a line, and the variance of each kind along them.

    Both kinds weigh the same, each by its own total variance: one class token among 196 patches would otherwise have
    no say in where the bytes go.
    """
    width = rows.shape[-1]
    sums, counts = np.zeros((2, width, width)), np.zeros((2, 1, 1))
    for piece in pieces(rows):
        centred = centre(piece.columns, mean[piece.kind])[:, piece.stored]
        sums[piece.kind] += centred @ centred.T
        counts[piece.kind] += centred.shape[1]
    covariances = sums / np.maximum(counts, 1)
    totals = np.trace(covariances, axis1=1, axis2=2)[:, None, None]
    shares = np.divide(covariances, totals, out=np.zeros_like(covariances), where=totals > 0)
    axes = np.linalg.eigh(shares.sum(0))[1].T[::-1]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1)
    axes = axes * np.where(largest < 0, -1.0, 1.0)  # an axis has no sign of its own
    variances = np.einsum("ai,kij,aj->ka", axes, covariances, axes, optimize=True)
    return axes, np.maximum(variances, 0)


def share_of_variance(variances: Float64[np.ndarray, "2 width"]) -> Float64[np.ndarray, " width"]:
    """How much of its kind's variance lies along each axis, summed over both kinds."""
    totals = variances.sum(1, keepdims=True)
    return np.divide(variances, totals, out=np.zeros_like(variances), where=totals > 0).sum(0)
