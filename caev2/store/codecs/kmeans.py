"""Lloyd's k-means in numpy, from points that Philox words choose."""

import numpy as np
from jaxtyping import Float32, Int

from caev2.store.draws import Draws

CENTROIDS = 256
_ROUNDS = 12


def nearest_centroids(
    points: Float32[np.ndarray, "point axis"], centroids: Float32[np.ndarray, "256 axis"]
) -> Int[np.ndarray, " point"]:
    """The index of the nearest centroid; of equally near ones the first."""
    half_squares = 0.5 * np.square(centroids).sum(1)
    return (half_squares - points @ centroids.T).argmin(1)


def fit_centroids(points: Float32[np.ndarray, "point axis"], *key: str | int) -> Float32[np.ndarray, "256 axis"]:
    """256 centroids. One that nothing is nearest to stays where it is.

    Args:
        points: If there are none, every centroid is zero.
        key: What the choice of the starting points is a function of.
    """
    if not len(points):
        return np.zeros((CENTROIDS, points.shape[1]), np.float32)
    order = Draws("kmeans", *key).permutation(len(points))
    centroids = points[np.resize(order, CENTROIDS)]
    for _ in range(_ROUNDS):
        labels = nearest_centroids(points, centroids)
        counts = np.bincount(labels, minlength=CENTROIDS)
        sums = [np.bincount(labels, weights=axis, minlength=CENTROIDS) for axis in points.T]
        means = np.stack(sums, 1) / np.maximum(counts, 1)[:, None]
        centroids = np.where(counts[:, None] > 0, means, centroids).astype(np.float32)
    return centroids
