import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caev2.store.codecs.gaussian import distortion, lloyd_max_levels, nearest_levels

# Max, "Quantizing for minimum distortion", IRE Trans. Inf. Theory 6 (1960), table I: positive levels and mean squared
# error of the best quantiser of a unit normal variable with N levels
MAX_1960 = {
    1: ([0.7980], 0.3634),
    2: ([0.4528, 1.510], 0.1175),
    4: ([0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733], 0.009497),
}


@pytest.mark.parametrize("bits", MAX_1960)
def test_levels_and_distortion_are_those_that_max_published(bits):
    levels, error = MAX_1960[bits]
    np.testing.assert_allclose(lloyd_max_levels(bits)[2 ** (bits - 1) :], levels, rtol=4e-4)
    # at 16 levels a direct numerical minimum is 0.0095010: the published one is 0.04 % low
    assert distortion(bits) == pytest.approx(error, rel=5e-4)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_levels_are_the_means_of_what_lies_nearest_to_them(bits):
    # the cells' means by a plain sum over a fine grid, not by the formula that made the levels
    grid = np.linspace(-12, 12, 2_000_001)
    weights = np.exp(-(grid**2) / 2)
    codes = nearest_levels(grid.astype(np.float32)[:, None], bits)[:, 0]
    means = np.bincount(codes, weights * grid, 2**bits) / np.bincount(codes, weights, 2**bits)
    np.testing.assert_allclose(means, lloyd_max_levels(bits), atol=2e-4)


def test_eight_bits_are_close_to_panter_and_dites_bound():
    # the bound is approached from below
    assert 0.95 < distortion(8) / (np.sqrt(3) * np.pi / 2 * 2.0**-16) < 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@given(values=hnp.arrays(np.float32, (3, 5), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_no_level_is_nearer_than_the_chosen_one(bits, values):
    levels = lloyd_max_levels(bits).astype(np.float64)
    chosen = np.abs(values - levels[nearest_levels(values, bits)])
    nearest = np.abs(values[..., None] - levels).min(-1)
    # a threshold is rounded to float32: next to it either level is as near
    np.testing.assert_allclose(chosen, nearest, rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_level_is_its_own_nearest(bits):
    codes = np.arange(2**bits, dtype=np.uint8)[:, None]
    assert (nearest_levels(lloyd_max_levels(bits)[codes], bits) == codes).all()


def test_zeros_of_either_sign_get_the_first_level_above():
    assert nearest_levels(np.array([[0.0, -0.0]], np.float32), 4).tolist() == [[8, 8]]


def test_levels_are_ascending_symmetric_and_read_only():
    levels = lloyd_max_levels(8)
    assert (np.diff(levels) > 0).all()
    assert (levels == -levels[::-1]).all()
    with pytest.raises(ValueError, match="read-only"):
        levels[0] = 0
