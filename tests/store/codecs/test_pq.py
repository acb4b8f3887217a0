import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caev2.store.codecs.kmeans import fit_centroids, nearest_centroids
from caev2.store.codecs.pq import deal_axes


@given(
    shares=hnp.arrays(float, st.integers(1, 60), elements=st.floats(0, 1)),
    groups=st.integers(1, 30),
)
def test_every_axis_is_in_one_group_and_groups_differ_by_one_at_most(shares, groups):
    members = deal_axes(shares, groups)
    assert sorted(members[members >= 0]) == list(range(len(shares)))
    sizes = (members >= 0).sum(1)
    assert sizes.max() - sizes.min() <= 1


def test_groups_get_about_equal_products_of_variance():
    shares = 0.9 ** np.arange(64)
    products = np.log(shares)[deal_axes(shares, 16)].sum(1)
    assert np.ptp(products) < 0.1


def test_points_in_256_clear_clusters_are_found_by_their_centres():
    random = np.random.default_rng(0)
    points = np.repeat(np.stack(np.meshgrid(range(16), range(16)), -1).reshape(-1, 2), 40, 0).astype(np.float32)
    points += random.uniform(-0.02, 0.02, points.shape).astype(np.float32)
    centroids = fit_centroids(points, "test")
    error = np.square(points - centroids[nearest_centroids(points, centroids)]).sum(1).mean()
    start = points[random.permutation(len(points))[:256]]
    assert error < 0.6 * np.square(points - start[nearest_centroids(points, start)]).sum(1).mean()


@pytest.mark.parametrize("count", [1, 3, 255])
def test_fewer_points_than_centroids_are_kept_exactly(count):
    points = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
    centroids = fit_centroids(points, "test")
    np.testing.assert_allclose(centroids[nearest_centroids(points, centroids)], points, rtol=1e-6)


def test_the_nearest_centroid_agrees_with_every_distance():
    random = np.random.default_rng(1)
    points, centroids = (random.standard_normal((count, 4)).astype(np.float32) for count in (500, 256))
    distances = np.square(points[:, None].astype(float) - centroids).sum(-1)
    assert (nearest_centroids(points, centroids) == distances.argmin(1)).all()
