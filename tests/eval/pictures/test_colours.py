"""Numbers as colours: what is brighter is more."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from caev2.eval.pictures.colours import heat, mark_patch

DARK, BRIGHT = (68, 1, 84), (253, 231, 37)  # the ends of matplotlib's viridis


def test_the_ends_of_the_scale_are_those_of_viridis():
    values = torch.tensor([[[0.0, 0.25], [0.5, 1.0]]])
    shown = heat(values)
    assert tuple(shown[0, 0, 0]) == DARK
    assert tuple(shown[0, 1, 1]) == BRIGHT
    assert tuple(shown[0, 1, 0]) == (33, 145, 140)


@given(arrays.arrays(np.float64, (2, 3, 3), elements=st.floats(-5, 5, width=16)))
def test_what_is_more_is_never_less_green(values):
    shown = heat(torch.from_numpy(values))[..., 1].astype(int)  # of viridis, green alone rises all the way
    for image, colours in zip(values.reshape(2, -1), shown.reshape(2, -1), strict=True):
        assert (np.diff(colours[np.argsort(image, kind="stable")]) >= 0).all()


def test_a_scale_of_ones_own_makes_images_comparable():
    values = torch.tensor([[[0.5]], [[1.0]]])
    low, high = torch.zeros(2), torch.ones(2)
    half, whole = heat(values, low, high)[:, 0, 0]
    assert tuple(half) == (33, 145, 140)
    assert tuple(whole) == BRIGHT
    assert tuple(heat(torch.full((1, 2, 2), 0.3))[0, 0, 0]) == DARK  # all alike: nothing stands out


def test_a_frame_goes_around_the_patch_and_nothing_else():
    crops = np.zeros((2, 32, 32, 3), np.uint8)
    marked = mark_patch(crops, row=1, column=2, grid=4)
    red = (marked != 0).any(-1)
    assert red[:, 8:16, 16:24].sum() == 2 * (64 - 36)
    assert red.sum() == red[:, 8:16, 16:24].sum()
    assert not crops.any()
