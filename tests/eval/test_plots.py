"""Pictures: what was given is what is seen."""

import sys

import numpy as np
import pytest
from PIL import Image

from caev2.errors import ConfigError
from caev2.eval.interval import wilson
from caev2.eval.plots import plot_accuracy, plot_curves, plot_grid

RECORDS = [
    {"step": step, "loss": 1 / step, "cosine_class": 0.9, "cosine_visible": 0.8, "cosine_masked": 0.7}
    for step in range(1, 9)
]
BARS = {
    "knn": {"pixels": wilson(20, 50), "student": wilson(5, 50)},
    "attentive": {"student": wilson(40, 50)},  # pixels have no tokens
}


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def area_of(path, colour) -> int:
    return int((pixels(path) == np.array(colour, np.uint8)).all(-1).sum())


def test_a_grid_shows_every_patch_in_its_own_colour_and_equally_large(tmp_path):
    # 16 colours that nothing else in the picture has
    patches = np.array([[[10 + 12 * n, 200 - 9 * n, 77] for n in range(16)]], np.uint8).reshape(1, 4, 4, 3)
    path = plot_grid({"image": np.zeros((1, 8, 8, 3), np.uint8), "teacher": patches}, ["zero"], tmp_path / "grid.png")
    areas = [area_of(path, colour) for colour in patches.reshape(-1, 3)]
    assert min(areas) > 500
    assert max(areas) < 1.1 * min(areas)


def test_a_dollar_in_a_name_is_a_dollar(tmp_path):
    image = np.zeros((1, 8, 8, 3), np.uint8)
    plain, odd = (
        plot_grid({title: image}, [row], tmp_path / name)
        for name, title, row in (("plain.png", "a", "b"), ("odd.png", "$\\frac$", "5$ and $_"))
    )
    assert (pixels(odd) == 0).sum() > 0
    assert pixels(odd).shape == pixels(plain).shape


def test_bars_grow_with_the_accuracy(tmp_path):
    path = plot_accuracy(BARS, tmp_path / "bars.png")
    image = pixels(path)
    blue, left = np.array([0x00, 0x72, 0xB2], np.uint8), image.shape[1] // 2
    weak, strong = ((half == blue).all(-1).sum(0).max() for half in (image[:, :left], image[:, left:]))
    # 10 % against 80 %; wherever the legend's patch lies, it is lower than either
    assert strong > 5 * weak > 0


def test_curves_draw_all_three_kinds_of_token(tmp_path):
    path = plot_curves(RECORDS, tmp_path / "curves.png")
    for colour in ((0x00, 0x9E, 0x73), (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert area_of(path, colour) > 100


def test_a_run_without_records_still_has_a_picture(tmp_path):
    assert pixels(plot_curves([], tmp_path / "curves.png")).shape[2] == 3


def test_the_same_numbers_give_the_same_pixels(tmp_path):
    one, other = (plot_accuracy(BARS, tmp_path / name) for name in ("one.png", "other.png"))
    assert np.array_equal(pixels(one), pixels(other))


def test_without_matplotlib_the_message_names_the_pip_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r'pip install "caev2\['):
        plot_curves(RECORDS, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())
