"""Differences to a baseline: a point each, on both sides of nothing, with what it may be."""

from collections.abc import Sequence
from dataclasses import dataclass

from caev2.report.drawing.bars import axis_marks, shortened
from caev2.report.drawing.frame import LETTER_WIDTH, WIDTH, drawing, letters
from caev2.report.drawing.markup import Html, tag
from caev2.report.drawing.scale import Scale, span

_ROW, _AXIS = 26, 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """How far something is from the baseline."""

    name: str
    value: float | None
    """None: it is not known, and `words` says why."""
    reach: float | None = None
    """To both sides of it: where it may be."""
    colour: str = "grey"
    filled: bool = False
    """Whether a direction is claimed."""
    words: str = ""
    """Behind the point."""


def difference_chart(rows: Sequence[Away], *, title: str) -> Html:
    """Points below each other, and a line where there is no difference.

    Args:
        rows: From top to bottom.
        title: What differs, and from what.
    """
    known = [row.value + side * (row.reach or 0.0) for row in rows if row.value is not None for side in (-1, 1)]
    low, high = span([0.0, *known], least=1e-3)
    left = min(14 + LETTER_WIDTH * max(len(row.name) for row in rows), WIDTH * 0.42)
    right = WIDTH - 16 - LETTER_WIDTH * max(len(row.words) for row in rows)
    across = Scale(low=low, high=high, begin=left, end=max(right, left + 60))
    height = _ROW * len(rows) + _AXIS
    zero = tag("line", x1=across(0.0), x2=across(0.0), y1=0, y2=height - _AXIS + 2, class_="baseline")
    marks = [*axis_marks(across, height, _AXIS), zero, *(_row(row, place, across) for place, row in enumerate(rows))]
    about = "; ".join(f"{row.name}: {row.words}" for row in rows)
    return drawing(*marks, width=WIDTH, height=height, title=title, about=about)


def _row(row: Away, place: int, across: Scale) -> Html:
    middle = (place + 0.5) * _ROW - 1
    name = shortened(row.name, across.begin - 8)
    marks = [
        letters(across.begin - 8, middle + 4.5, name, class_="name", anchor="end"),
        letters(across.end + 10, middle + 4.5, row.words, class_="value" if row.filled else "tick"),
    ]
    if row.value is None:
        return tag("g", marks)
    if row.reach:
        ends = [across(row.value - row.reach), across(row.value + row.reach)]
        marks.append(tag("g", tag("line", x1=ends[0], x2=ends[1], y1=middle, y2=middle), class_="whisker"))
    shape = f"fill-{row.colour} point" if row.filled else "hollow"
    return tag("g", marks, tag("circle", cx=across(row.value), cy=middle, r=5, class_=shape))
