"""Jitter in few passes against torchvision's one step after another, byte for byte."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageStat
from torchvision.transforms import functional as F

from caev2.demo.photographs import photographs
from caev2.store.pixels.jitter import BRIGHTNESS, CONTRAST, SATURATION, WholeImage, jitter
from caev2.store.pixels.views import ViewSettings, draw_view, render_view, render_views

ADJUST = {BRIGHTNESS: F.adjust_brightness, CONTRAST: F.adjust_contrast, SATURATION: F.adjust_saturation}
ORDERS = list(itertools.permutations(range(3)))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (41, 67, 3), dtype=np.uint8))
EVERY_BYTE = Image.fromarray(
    np.stack([np.arange(256), np.arange(256)[::-1], np.roll(np.arange(256), 99)], -1)[None].astype(np.uint8)
)
FEW = Image.new("RGB", (3, 2), (1, 254, 128))
PHOTOGRAPHS = [Image.fromarray(pixels).resize((160, 120)) for pixels in photographs().values()]


def grey_mean_of(image: Image.Image) -> int:
    """As `ImageEnhance.Contrast` measures it."""
    return int(ImageStat.Stat(image.convert("L")).mean[0] + 0.5)


def random_factors(count: int, strength: float) -> list[tuple[float, float, float]]:
    drawn = np.random.default_rng(count).uniform(1 - strength, 1 + strength, (count, 3))
    return [(float(one), float(two), float(three)) for one, two, three in drawn]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_jitter_and_the_mean_it_blends_with_are_torchvisions(order, strength):
    for image in [NOISE, EVERY_BYTE, FEW, *PHOTOGRAPHS]:
        whole = WholeImage(image)
        for factors in random_factors(12, strength):
            expected, measured = image, 0
            for step in order:
                measured = grey_mean_of(expected) if step == CONTRAST else measured
                expected = ADJUST[step](expected, factors[step])
            before = order.index(CONTRAST)
            jittered = whole.jitter(order[:before], factors)
            assert whole.grey_mean(jittered) == measured
            assert jitter(image, order, factors, measured).tobytes() == expected.tobytes()
            assert jitter(jittered, order[before:], factors, measured).tobytes() == expected.tobytes()


@pytest.mark.parametrize("still", range(3))
def test_a_factor_of_one_is_no_step_at_all(still):
    factors = tuple(1.0 if step == still else 1.3 for step in range(3))
    for order in ORDERS:
        without = [step for step in order if step != still]
        assert jitter(NOISE, order, factors, 99).tobytes() == jitter(NOISE, without, factors, 99).tobytes()
    assert jitter(NOISE, ORDERS[0], (1.0, 1.0, 1.0), 99) is NOISE


@pytest.mark.parametrize("strength", [None, 0.4, 1.0])
def test_views_rendered_together_are_the_views_rendered_alone(strength):
    settings = ViewSettings(jitter=strength, size_px=96)
    for number, image in enumerate([NOISE, FEW, *PHOTOGRAPHS]):
        together = list(render_views(settings, f"{number}", range(2, 10), image))
        for index, (view, pixels) in zip(range(2, 10), together, strict=True):
            assert view == draw_view(settings, f"{number}", index, image)
            assert np.array_equal(pixels, render_view(image, view, 96))
