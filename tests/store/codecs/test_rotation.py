import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caev2.store.codecs.rotation import rotate_columns, rotation_matrix

WIDTHS = [1, 2, 3, 5, 12, 33, 128, 384, 512, 640, 768]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_rotation_is_orthogonal(width):
    matrix = rotation_matrix(width).astype(np.float64)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(width), atol=3e-7)


@given(width=st.integers(1, 90), seed=st.integers(0, 1000))
def test_rotating_columns_is_multiplying_with_the_matrix(width, seed):
    columns = np.random.default_rng(seed).standard_normal((width, 4)).astype(np.float32)
    expected = rotation_matrix(width).astype(np.float64) @ columns
    np.testing.assert_allclose(rotate_columns(columns), expected, atol=2e-6)


@pytest.mark.parametrize("width", [384, 512, 640, 768])
def test_one_loud_channel_is_spread_over_all(width):
    # of all that is in one channel, no coded channel holds more than a few times its share
    assert (rotation_matrix(width) ** 2).max() * width < 4


def test_a_power_of_two_is_rotated_by_signs_and_hadamards_matrix():
    scipy_linalg = pytest.importorskip("scipy.linalg")
    matrix = rotation_matrix(16)
    signs = np.sign(matrix[0])
    np.testing.assert_allclose(matrix * signs * 4, scipy_linalg.hadamard(16), atol=1e-6)


def test_columns_are_left_as_they_were():
    columns = np.ones((8, 2), np.float32)
    rotate_columns(columns)
    assert (columns == 1).all()


def test_the_rotation_is_frozen():
    # the first computation on x86-64; stores that exist decode by their own copy, new ones must fit the same tables
    signs = np.sign(rotation_matrix(512)[0]).astype(np.int8)
    assert (
        hashlib.sha256(signs.tobytes()).hexdigest()
        == "706cb23f0275e6c87b5a2cf8f559c99cf54d23554771ca4b1dbc404b35a3642d"
    )
    rotated = rotate_columns(np.arange(512 * 2, dtype=np.float32).reshape(512, 2))
    assert (
        hashlib.sha256(rotated.tobytes()).hexdigest()
        == "6c87418699b1da7c370167aa247de9cf6e21a1b34094e7705cded4cf0ef225bf"
    )
