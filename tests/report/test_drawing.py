"""Markup and drawings: what is text stays text, and marks are where the numbers are."""

import base64
import io
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from caev2.report.drawing.bars import Bar, bar_chart
from caev2.report.drawing.lines import Line, line_chart, spread_apart, thinned
from caev2.report.drawing.markup import Html, tag
from caev2.report.drawing.scale import Scale, say_tick, ticks
from caev2.report.drawing.strip import heat_strip
from tests.report.reading_pages import Page

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"))  # a parser makes others of these two
NUMBER = st.floats(-1e6, 1e6)


@given(TEXT, TEXT)
def test_any_text_is_read_back_as_it_was_and_opens_no_element(text, value):
    page = Page(tag("p", text, title=value).encode())
    assert page.elements == [("p", {"title": value})]
    assert "".join(page.words) == text


def test_markup_within_markup_is_not_escaped_again():
    assert tag("p", tag("b", "1 < 2"), " & ", Html("<br>")) == "<p><b>1 &lt; 2</b> &amp; <br></p>"


def test_attributes_that_are_none_or_false_are_left_out():
    assert tag("td", class_="x", title=None, hidden=False, open=True, stroke_width=2.0) == (
        '<td class="x" open stroke-width="2"></td>'
    )


@given(NUMBER, st.floats(1e-3, 1e6), st.integers(2, 9))
def test_ticks_are_within_the_range_in_equal_steps_and_about_as_many_as_wanted(low, width, count):
    found = ticks(low, low + width, count)
    assert all(low - 1e-6 * width <= one <= low + width * (1 + 1e-6) + 1e-6 for one in found)
    steps = [b - a for a, b in pairwise(found)]
    assert all(abs(step - steps[0]) <= 1e-6 * max(abs(low), width) for step in steps)
    assert len(found) <= 2 * count


def test_a_scale_maps_its_ends_to_its_ends():
    scale = Scale(low=2.0, high=4.0, begin=100.0, end=0.0)
    assert [scale(2), scale(3), scale(4)] == [100, 50, 0]


@pytest.mark.parametrize(("value", "words"), [(1500, "1.5k"), (0.25, "0.25"), (-3, "−3"), (2e6, "2M"), (0, "0")])
def test_ticks_are_short(value, words):
    assert say_tick(value) == words


@given(st.lists(st.floats(0, 200), max_size=8))
def test_names_are_apart_in_order_and_within_the_drawing(places):
    moved = spread_apart(sorted(places), 15, 0, 200)
    assert all(b - a >= 15 - 1e-6 for a, b in pairwise(moved))
    assert all(-1e-6 <= one <= 200 + 1e-6 for one in moved)


@given(st.integers(1, 3000))
def test_a_thinned_line_keeps_its_ends_and_its_order(count):
    points = [(float(step), 1.0) for step in range(count)]
    kept = thinned(points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert len(kept) == min(count, 400)
    assert all(a < b for a, b in pairwise(kept))


def path_of(drawn: str) -> str:
    found = re.search(r'<path d="([^"]*)"', drawn)
    assert found
    return found[1]


def test_a_number_that_was_not_finite_cuts_the_line():
    points = ((0.0, 1.0), (1.0, 2.0), (2.0, None), (3.0, 2.0), (4.0, 1.0))
    drawn = line_chart([Line(name="", colour="blue", points=points)], title="t")
    assert [word[0] for word in path_of(drawn).replace(" ", ",").split(",") if word[0] in "ML"] == ["M", "L", "M", "L"]


def test_a_single_number_is_a_dot():
    drawn = line_chart([Line(name="kNN", colour="blue", points=((7.0, 41.5),))], title="t", unit=" %", digits=1)
    assert drawn.count("<circle") == 2  # the point, and the end of the line
    assert "kNN 41.5 %" in drawn


def widths(drawn: str) -> list[float]:
    return [float(width) for width in re.findall(r'<rect x="[^"]*" y="[^"]*" width="([^"]*)"', drawn)]


def test_bars_are_as_long_as_their_numbers():
    drawn = bar_chart([Bar(name="a", value=20.0), Bar(name="b", value=80.0)], title="t", whole=True)
    short, long = widths(drawn)
    assert long == pytest.approx(4 * short, rel=1e-3)


def test_numbers_that_are_close_are_points_since_bars_without_a_zero_would_lie():
    drawn = bar_chart([Bar(name="a", value=80.0), Bar(name="b", value=81.0)], title="t")
    assert widths(drawn) == []
    assert drawn.count('class="fill-blue point"') == 2


def test_a_drawing_says_its_numbers_to_those_who_do_not_see_it():
    drawn = bar_chart(
        [Bar(name="student", value=87.7, low=86.8, high=88.6), Bar(name="x", value=None, words="failed")], title="kNN"
    )
    assert "<title>kNN</title>" in drawn
    assert "<desc>student: 87.7 % (86.8 to 88.6); x: failed</desc>" in drawn


def test_a_strip_is_darker_where_the_share_is_higher_and_says_classes_without_images():
    drawn = heat_strip([("student", (0.0, 0.55, 1.0, None))], ("a", "b", "c", "d"), "linear")
    assert drawn is not None
    assert re.findall(r"heat-(\d)", drawn) == ["0", "5", "9"]
    assert "d: no images" in drawn


def test_a_strip_of_more_classes_than_anybody_reads_is_left_out():
    assert heat_strip([("student", (0.5,) * 1001)], ("x",) * 1001, "linear") is None


def test_of_many_classes_there_is_a_picture_a_row_with_a_pixel_a_class_as_opaque_as_the_share_is_high():
    shares = (*(number / 99 for number in range(100)), None)
    drawn = heat_strip([("student", shares), ("teacher", (0.5,) * 101)], tuple(map(str, range(101))), "linear")
    assert drawn is not None
    assert len(drawn) < 3_000
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', drawn)
    assert len(sources) == 2
    opacity = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources[0]))))[0, :, 3]
    assert (opacity[:-1] == sorted(opacity[:-1])).all()
    assert (opacity[0], opacity[99], opacity[100]) == (13, 255, 0)
    assert "linear, student: 101 classes, 0 to 100 %" in drawn
