"""Pictures of grids: what was given is what is seen."""

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps
from PIL import Image

from caev2.ablate.curves import plot_curves, read_curves
from caev2.ablate.plots import is_geometric, numeric_axis, plot_bars, plot_heat, plot_line, wrap
from caev2.errors import ConfigError
from caev2.extract.run import extract
from caev2.pretrain.telling.log import read_log
from tests.ablate.made_up import RECIPE, averages, make_outcome, supervision, views, write_logs
from tests.made_up import EXTRACT, PatchMeans, make_photographs
from tests.made_up_pretrain import PRETRAIN
from tests.pretrain.training import train

BLUE, ORANGE = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def has(image, colour) -> np.ndarray:
    return (image == np.array(colour, np.uint8)).all(-1)


def left(image) -> np.ndarray:
    return image[:, : int(0.55 * image.shape[1])]


def right(image) -> np.ndarray:
    return image[:, int(0.65 * image.shape[1]) :]


def bands(inked) -> int:
    """How many stretches of rows with ink there are."""
    return int(np.diff(inked.any(1).astype(int), prepend=0).clip(0).sum())


def two(first, second, **how):
    return make_outcome({"way": ("a", "b")}, {("a",): {"knn": first}, ("b",): {"knn": second}}, **how)


def test_bars_are_as_long_as_their_means_and_the_baseline_has_its_colour(tmp_path):
    image = pixels(plot_bars(two((0.8, 0.8), (0.2, 0.2)), "knn", tmp_path / "bars.png"))
    baseline, other = (has(left(image), colour).sum(1).max() for colour in (ORANGE, BLUE))
    # axes hide a pixel or two, dots some more
    assert baseline == pytest.approx(4 * other, rel=0.1)


def test_a_claimed_difference_is_filled_and_another_is_hollow(tmp_path):
    def ink(values):
        return has(right(pixels(plot_bars(two((0.5, 0.51), values), "knn", tmp_path / "bars.png"))), BLUE).sum()

    # the same mean difference: once 10 ± 0.1 points, once without an error to judge by, so no bar adds ink
    claimed, unresolved = ink((0.399, 0.411)), ink((0.4, 0.41))
    assert claimed > 1.5 * unresolved > 0


def test_what_failed_has_no_bar(tmp_path):
    outcome = two((0.8, 0.8), (0.2, 0.2), failures={(("b",), seed): "killed" for seed in (0, 1)})
    image = pixels(plot_bars(outcome, "knn", tmp_path / "bars.png"))
    assert not has(image, BLUE).any()
    assert has(left(image), ORANGE).sum() > 1000


@pytest.mark.parametrize("count", [2, 14])
def test_long_names_stay_apart(tmp_path, count):
    names = [f"a long name of value {number}" for number in range(count)]
    values = {(name,): {"knn": (0.3, 0.31)} for name in names}
    image = pixels(plot_bars(make_outcome({"setting": names}, values), "knn", tmp_path / "bars.png"))
    spine = has(left(image), ORANGE).argmax(1).max()
    inked = (image[:, : spine - 8] < 200).all(-1)
    inked = inked[: int(0.93 * len(inked)) if count == 14 else int(0.7 * len(inked))]  # no tick of the axis below
    assert bands(inked) == count


def test_names_are_cut_between_words_or_after_an_underscore_and_nothing_is_lost():
    name = "smooth_l1_of_layer_normalised_targets with_a_whitened_projection_on_top"
    lines = wrap(name).split("\n")
    assert len(lines) > 1
    assert all(len(line) <= 34 for line in lines)
    assert "".join(lines).replace(" ", "") == name.replace(" ", "")


@given(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=80))
def test_wrapping_keeps_every_letter(name):
    assert wrap(name).replace("\n", "") == name


def test_a_heat_map_is_brightest_where_the_mean_is_highest_and_frames_the_baseline(tmp_path):
    image = pixels(plot_heat(averages(), "knn", tmp_path / "heat.png"))
    best, worst = (
        np.argwhere(has(image, np.array(colormaps["cividis"](share, bytes=True)[:3]))).mean(0) for share in (1.0, 0.0)
    )
    frame = np.argwhere(has(image, ORANGE)).mean(0)
    # rows are masks 16, 32, 48; columns token_mean, group_mean; the best is mask 48 with token_mean, below the baseline
    assert best[0] > frame[0] + 0.3 * len(image)
    assert abs(best[1] - frame[1]) < 0.05 * image.shape[1]
    assert worst[1] > frame[1] + 0.3 * image.shape[1]


def test_a_heat_map_without_any_number_is_still_a_picture(tmp_path):
    failures = {(place, seed): "killed" for place in [(c, w) for c in ("16", "32", "48") for w in ("token_mean", "group_mean")] for seed in (0, 1)}  # fmt: skip
    assert has(pixels(plot_heat(averages(failures=failures), "knn", tmp_path / "heat.png")), ORANGE).any()


def test_numbers_are_a_line_and_other_values_lie_level(tmp_path):
    outcome = views()
    image = pixels(plot_line(outcome, numeric_axis(outcome), "knn", tmp_path / "line.png"))
    level = np.argwhere(has(image, ORANGE))
    assert has(image, BLUE).sum() > 1000
    # a legend of its own colour aside, it is drawn from edge to edge in few rows
    assert np.ptp(level[:, 1]) > 0.8 * image.shape[1]


@pytest.mark.parametrize(
    ("axes", "name"),
    [
        ({"views": ("16", "1", "2")}, "views"),
        ({"views": ("16", "1", "fresh")}, None),
        ({"model": ("tiny", "small"), "mask": ("0.25", "0.5", "0.75")}, "mask"),
        ({"a": ("1", "2", "3"), "b": ("1", "2", "3", "4")}, "b"),
        ({"a": ("1", "2", "3"), "b": ("x", "y"), "c": ("x", "y")}, None),
    ],
)
def test_the_axis_with_the_most_numbers_is_the_one_to_draw_along(axes, name):
    found = numeric_axis(make_outcome(axes, {}))
    assert (found and found.name) == name


@given(st.floats(0.01, 100), st.floats(1.1, 10), st.integers(3, 8), st.randoms(use_true_random=False))
def test_powers_are_geometric_in_any_order_and_steps_are_not(first, factor, count, random):
    powers = [first * factor**power for power in range(count)]
    random.shuffle(powers)
    assert is_geometric(powers)
    assert not is_geometric([first + factor * step for step in range(count)])
    assert not is_geometric([0.0, *powers])


def test_curves_are_means_over_seeds_up_to_the_last_epoch(tmp_path):
    outcome = supervision()
    write_logs(outcome, tmp_path, steps=40)
    found = read_curves(outcome, tmp_path / "runs", pytest.fail)
    one, other = (read_curves(supervision(seeds=(0, 1), failures={(("both",), failed): "x"}), tmp_path / "runs", pytest.fail) for failed in (1, 0))  # fmt: skip
    both = found["loss"]["tokens=both"]
    assert max(both) == RECIPE["epochs"]
    for epoch, value in both.items():
        assert value == pytest.approx((one["loss"]["tokens=both"][epoch] + other["loss"]["tokens=both"][epoch]) / 2)
    assert list(found["knn_percent"]["tokens=both"]) == [1, 2, 3, 4]


def test_the_log_of_a_real_run_is_a_curve_to_its_last_epoch(tmp_path):
    make_photographs(tmp_path / "images", 20)
    extract(tmp_path / "images", tmp_path / "store", EXTRACT, teacher=PatchMeans())
    recipe = dataclasses.replace(PRETRAIN, knn_epochs=1)
    outcome = two((0.5,), (0.4,), seeds=(0,), recipes={("a",): {"epochs": recipe.epochs}})
    run = tmp_path / "runs" / outcome.runs[0].fingerprint
    train(tmp_path, run, recipe, judge=lambda student: {"knn_percent": 12.5})
    found = {name: curves["way=a"] for name, curves in read_curves(outcome, tmp_path / "runs", pytest.fail).items()}
    assert set(found) == {"loss", "cosine_masked", "cosine_visible", "knn_percent"}
    assert list(found["loss"].values()) == [loss["loss"] for loss in read_log(run) if "loss" in loss]
    assert max(found["loss"]) == recipe.epochs
    assert found["knn_percent"] == {1.0: 12.5, 2.0: 12.5, 3.0: 12.5}


def test_what_the_log_does_not_say_is_no_curve(tmp_path):
    outcome = supervision(failures={(("masked",), seed): "killed" for seed in (0, 1)})
    write_logs(outcome, tmp_path, judged=False)
    found = read_curves(outcome, tmp_path / "runs", pytest.fail)
    assert "knn_percent" not in found
    assert set(found["loss"]) == {"tokens=both", "tokens=visible"}
    assert read_curves(outcome, tmp_path / "elsewhere", pytest.fail) == {}


def test_nearest_neighbours_of_one_variant_alone_are_no_comparison(tmp_path):
    outcome = supervision()
    write_logs(dataclasses.replace(outcome, runs=outcome.of("tokens=both")), tmp_path)
    write_logs(dataclasses.replace(outcome, runs=outcome.of("tokens=masked")), tmp_path, judged=False)
    found = read_curves(outcome, tmp_path / "runs", pytest.fail)
    assert set(found["loss"]) == {"tokens=both", "tokens=masked"}
    assert "knn_percent" not in found


def test_a_damaged_log_is_named_and_its_run_left_out(tmp_path):
    outcome = supervision()
    write_logs(outcome, tmp_path)
    log = tmp_path / "runs" / outcome.runs[0].fingerprint / "log.jsonl"
    log.write_text("nonsense\n" + log.read_text())
    warnings = []
    found = read_curves(outcome, tmp_path / "runs", warnings.append)
    (warning,) = warnings
    assert outcome.runs[0].fingerprint in warning
    others = dataclasses.replace(outcome, runs=outcome.runs[1:])
    assert found == read_curves(others, tmp_path / "runs", pytest.fail)


@pytest.mark.parametrize("judged", [True, False])
def test_curves_draw_every_variant(tmp_path, judged):
    outcome = supervision()
    write_logs(outcome, tmp_path, judged=judged)
    image = pixels(plot_curves(outcome, read_curves(outcome, tmp_path / "runs", pytest.fail), tmp_path / "curves.png"))
    for colour in (ORANGE, BLUE, (0x00, 0x9E, 0x73)):
        assert has(image, colour).sum() > 500
    # three panels leave the place of the fourth empty
    quarter = image[int(0.5 * len(image)) : int(0.85 * len(image)), int(0.55 * image.shape[1]) :]
    assert (quarter < 250).any() == judged


def test_the_same_numbers_are_the_same_bytes_without_date_or_version(tmp_path):
    one, other = (plot_bars(supervision(), "knn", tmp_path / name) for name in ("one.png", "other.png"))
    assert one.read_bytes() == other.read_bytes()
    with Image.open(one) as image:
        assert set(image.info) <= {"dpi"}


def test_without_matplotlib_the_message_names_the_pip_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r'pip install "caev2\['):
        plot_bars(supervision(), "knn", tmp_path / "bars.png")
    assert not list(tmp_path.iterdir())
