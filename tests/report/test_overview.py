"""All grids at a glance: every point stands where its number says, and only claims are full."""

import re
from pathlib import Path

import pytest

from caev2.report.drawing.differences import Away, difference_chart
from caev2.report.reading.studies import Grid
from caev2.report.sections.overview import overview
from tests.ablate.made_up import make_outcome


def grid_of(outcome) -> Grid:
    nowhere = Path("grid")
    return Grid(name=outcome.grid, folder=nowhere, outcome=outcome, pictures=(), runs=nowhere, gaps=())


def rows_of(chart: str) -> list[tuple[float, str]]:
    return [
        (float(x), kind) for x, kind in re.findall(r'<circle cx="([-0-9.]+)" cy="[^"]+" r="5" class="([^"]+)"', chart)
    ]


def test_points_stand_in_the_order_of_their_numbers_and_nothing_is_a_line():
    rows = [Away(name=str(value), value=value, reach=1.0, filled=value > 0) for value in (-3.0, 0.0, 6.0)]
    chart = difference_chart(rows, title="Made up")
    places = [x for x, _ in rows_of(chart)]
    zero = float(re.search(r'<line x1="([-0-9.]+)"[^>]*class="baseline"', chart)[1])
    assert places[1] == pytest.approx(zero)
    assert (places[2] - zero) == pytest.approx(2 * (zero - places[0]), rel=1e-3)
    assert [kind for _, kind in rows_of(chart)] == ["hollow", "hollow", "fill-grey point"]


def test_what_has_no_number_says_why_and_has_no_point():
    chart = difference_chart([Away(name="a", value=1.0), Away(name="b", value=None, words="no pair")], title="Made up")
    assert len(rows_of(chart)) == 1
    assert ">no pair</text>" in chart


def test_claims_are_full_and_coloured_and_what_is_open_is_hollow():
    values = {("a",): {"knn": (0.5, 0.52)}, ("b",): {"knn": (0.3, 0.31)}, ("c",): {"knn": (0.49, 0.53)}}
    lead, drawn = overview([grid_of(make_outcome({"axis": ("a", "b", "c")}, values))])
    assert [kind for _, kind in rows_of(drawn)] == ["fill-orange point", "hollow"]
    assert "-20.5 ± 0.5" in drawn
    assert "Directions claimed: 1" in lead


def test_a_grid_of_nothing_to_compare_is_left_out():
    assert overview([grid_of(make_outcome({"axis": ("a",)}, {("a",): {"knn": (0.5, 0.5)}}))]) == []
    assert overview([]) == []
