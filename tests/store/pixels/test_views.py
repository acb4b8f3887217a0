"""Views against torchvision: pixels byte for byte, boxes in distribution."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F

from caev2.demo.photographs import photographs
from caev2.errors import ConfigError
from caev2.store.draws import Draws
from caev2.store.pixels.views import View, ViewSettings, draw_box, draw_view, hash_crop, render_view, shrink_crop

PHOTOGRAPHS = list(photographs().items())[:10]
ADJUST = {0: F.adjust_brightness, 1: F.adjust_contrast, 2: F.adjust_saturation}


def torchvision_pixels(image: Image.Image, view: View, size_px: int) -> np.ndarray:
    """ColorJitter → flip → resized_crop with the drawn parameters, in torchvision's own order and frame."""
    for step in view.order:
        image = ADJUST[step](image, view.factors[step])
    top, left, height, width = view.box
    if view.flip:
        left = image.width - left - width
        image = F.hflip(image)
    resized = F.resized_crop(image, top, left, height, width, [size_px, size_px], F.InterpolationMode.BICUBIC)
    return np.asarray(resized)


@pytest.mark.parametrize(("name", "pixels"), PHOTOGRAPHS, ids=[name for name, _ in PHOTOGRAPHS])
def test_a_view_equals_torchvision_byte_for_byte(name, pixels):
    image, settings = Image.fromarray(pixels), ViewSettings()
    flips = 0
    for index in range(20):  # 10 photographs: 200 draws
        view = draw_view(settings, name, index, image)
        flips += view.flip
        assert np.array_equal(render_view(image, view, 224), torchvision_pixels(image, view, 224))
    assert 0 < flips < 20


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (60, 400)], ids=["landscape", "portrait", "panorama"])
def test_boxes_are_distributed_as_torchvision_draws_them(shape):
    height, width = shape
    torch.manual_seed(0)
    blank = Image.new("L", (width, height))
    scale, ratio = (0.4, 1.0), (3 / 4, 4 / 3)
    theirs = np.array(
        [RandomResizedCrop.get_params(blank, list(scale), list(ratio)) for _ in range(20_000)], dtype=float
    )
    draws = Draws("boxes", 0)
    ours = np.array([draw_box(draws, height, width, scale, ratio) for _ in range(20_000)], dtype=float)
    for name, measure in {
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
        "scale": lambda box: box[:, 2] * box[:, 3] / (height * width),
        "aspect": lambda box: box[:, 3] / box[:, 2],
    }.items():
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 0.01, name
    if shape == (60, 400):  # most draws do not fit: the fallback is what is compared
        fallback = (ours[:, 2] == 60) & (ours[:, 3] == 80)
        assert fallback.mean() > 0.1


def test_jitter_factors_and_orders_are_uniform():
    image = Image.new("RGB", (8, 8), (10, 20, 30))
    views = [draw_view(ViewSettings(), "key", index, image) for index in range(3000)]
    factors = np.array([view.factors for view in views])
    assert factors.min() >= 0.6
    assert factors.max() < 1.4
    for column in factors.T:
        assert ks_2samp(column, np.linspace(0.6, 1.4, 3000)).pvalue > 0.01
    orders, counts = np.unique([view.order for view in views], axis=0, return_counts=True)
    assert len(orders) == 6
    assert (abs(counts - 500) < 5 * np.sqrt(500 * 5 / 6)).all()
    assert abs(np.mean([view.flip for view in views]) - 0.5) < 0.05


def test_jitter_of_strength_zero_leaves_the_pixels_and_the_boxes_of_any_strength():
    image = Image.fromarray(PHOTOGRAPHS[0][1])
    for index in range(20):
        strong = draw_view(ViewSettings(jitter=0.4), "key", index, image)
        none = draw_view(ViewSettings(jitter=0.0), "key", index, image)
        assert (none.box, none.flip, none.factors) == (strong.box, strong.flip, (1.0, 1.0, 1.0))
        untouched = dataclasses.replace(none, order=(0, 1, 2))
        assert np.array_equal(render_view(image, none, 64), render_view(image, untouched, 64))


def test_a_thousand_draws_are_frozen():
    """Golden: made by the first version; a store made then must be replayed for ever."""
    draws = Draws("golden", 0, "ключ/画像.jpg", 3)
    floats = [draws.uniform() for _ in range(500)]
    integers = [draws.integer(1000 + n) for n in range(500)]
    assert floats[:3] == GOLDEN_FLOATS
    assert integers[:3] == GOLDEN_INTEGERS
    assert sum(floats) == GOLDEN_FLOAT_SUM
    assert sum(integers) == GOLDEN_INTEGER_SUM


def test_a_view_depends_on_seed_key_and_index_alone():
    image = Image.fromarray(PHOTOGRAPHS[0][1])
    view = draw_view(ViewSettings(), "a/b.jpg", 1, image)
    assert view == draw_view(ViewSettings(), "a/b.jpg", 1, image)
    others = [
        draw_view(ViewSettings(seed=1), "a/b.jpg", 1, image),
        draw_view(ViewSettings(), "a/c.jpg", 1, image),
        draw_view(ViewSettings(), "a/b.jpg", 2, image),
    ]
    assert view not in others


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 10**6))
def test_boxes_lie_inside_the_image(height, width, seed):
    top, left, box_height, box_width = draw_box(Draws(seed), height, width, (0.08, 1.0), (3 / 4, 4 / 3))
    assert top >= 0
    assert left >= 0
    assert box_height >= 1
    assert box_width >= 1
    assert top + box_height <= height
    assert left + box_width <= width


def test_a_single_pixel_has_a_view():
    image = Image.new("RGB", (1, 1), (1, 2, 3))
    view = draw_view(ViewSettings(jitter=None), "pixel", 0, image)
    assert view.box == (0, 0, 1, 1)
    assert (render_view(image, view, 4) == [1, 2, 3]).all()


def test_a_shift_of_one_pixel_changes_the_hash_and_the_thumbnail_tells_how_much():
    image = Image.fromarray(dict(PHOTOGRAPHS)[PHOTOGRAPHS[1][0]])
    view = draw_view(ViewSettings(jitter=None, scale=(0.4, 0.5)), "key", 0, image)
    top, left, height, width = view.box
    shift = 1 if left + width < image.width else -1
    moved = dataclasses.replace(view, box=(top, left + shift, height, width))
    one, other = render_view(image, view, 224), render_view(image, moved, 224)
    assert hash_crop(one) != hash_crop(other)
    assert hash_crop(one) == hash_crop(one.copy())
    assert abs(shrink_crop(one).astype(float) - shrink_crop(other)).mean() > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"size_px": 0},
        {"scale": (0.0, 1.0)},
        {"scale": (0.5, 0.4)},
        {"ratio": (2.0, 1.0)},
        {"jitter": -0.1},
        {"flip": 1.5},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ViewSettings(**settings)


GOLDEN_FLOATS = [0.7281544225262953, 0.9454209077957852, 0.06693376910795223]
GOLDEN_INTEGERS = [207, 550, 604]
GOLDEN_FLOAT_SUM = 253.64373732691462
GOLDEN_INTEGER_SUM = 312336
