"""Bars with intervals, lying, each with its name before it and its number behind.

Where numbers are so close that the axis does not begin at 0, they are points: the length of a bar would lie.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from caev2.report.drawing.frame import LETTER_WIDTH, WIDTH, drawing, letters
from caev2.report.drawing.markup import Html, tag
from caev2.report.drawing.scale import Scale, say_tick, span, ticks

_ROW, _THICK, _AXIS = 30, 16, 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One number with what it may be."""

    name: str
    value: float | None
    """None: there is none, and `words` says why."""
    low: float | None = None
    high: float | None = None
    dots: tuple[float, ...] = ()
    """What it is the mean of: draws, seeds."""
    colour: str = "blue"
    words: str = ""
    """Behind the bar, in place of the number."""


def bar_chart(
    bars: Sequence[Bar], *, title: str, unit: str = " %", whole: bool = False, baseline: float | None = None
) -> Html:
    """Bars below each other.

    Args:
        bars: From top to bottom; one at least has a number.
        title: What the numbers are.
        unit: Of the numbers.
        whole: Whether the axis goes from 0 to 100; else from 0, or from close below the least where all are close.
        baseline: Where a line goes through all of them.
    """
    known = [end for bar in bars for end in (bar.value, bar.low, bar.high, *bar.dots) if end is not None]
    low, high = (0.0, 100.0) if whole else _range(known)
    left = min(14 + LETTER_WIDTH * max(len(bar.name) for bar in bars), WIDTH * 0.42)
    right = WIDTH - 16 - LETTER_WIDTH * max(len(_words(bar, unit)) for bar in bars if bar.value is not None)
    across = Scale(low=low, high=high, begin=left, end=right)
    height = _ROW * len(bars) + _AXIS
    marks = [*axis_marks(across, height, _AXIS), *(_bar(bar, row, across, unit) for row, bar in enumerate(bars))]
    if baseline is not None:
        x = across(baseline)
        marks.append(tag("line", x1=x, x2=x, y1=0, y2=height - _AXIS + 2, class_="baseline"))
    about = "; ".join(f"{bar.name}: {_words(bar, unit) or 'not there'}{_say_reach(bar)}" for bar in bars)
    return drawing(*marks, width=WIDTH, height=height, title=title, about=about)


def _range(known: Sequence[float]) -> tuple[float, float]:
    low, high = span(known)
    return (low, high) if low > 0 and high - low < 0.35 * high else (min(0.0, low), high)


def axis_marks(across: Scale, height: float | int, below: float | int) -> list[Html]:
    """Lines through round numbers, which stand below them.

    Args:
        across: From numbers to places.
        height: Of the whole drawing.
        below: How much of it is for the numbers.
    """
    marks = []
    for value in ticks(across.low, across.high, 4):
        x = across(value)
        marks.append(tag("line", x1=x, x2=x, y1=0, y2=height - below, class_="grid"))
        marks.append(letters(x, height - 6, say_tick(value), anchor="middle"))
    return marks


def _bar(bar: Bar, row: int, across: Scale, unit: str) -> Html:
    top = row * _ROW + (_ROW - _THICK) / 2 - 1
    middle = top + _THICK / 2
    name = letters(across.begin - 8, middle + 4.5, shortened(bar.name, across.begin - 8), class_="name", anchor="end")
    if bar.value is None:
        return tag("g", name, letters(across.begin + 4, middle + 4.5, bar.words, class_="tick"))
    width = max(across(bar.value) - across.begin, 1.0)
    shape = f"fill-{bar.colour}"
    body = tag("rect", x=across.begin, y=top, width=width, height=_THICK, rx=2, class_=shape)
    point = tag("circle", cx=across(bar.value), cy=middle, r=5.5, class_=f"{shape} point")
    number = letters(across.end + 10, middle + 4.5, _words(bar, unit), class_="value")
    dots = [tag("circle", cx=across(dot), cy=top + _THICK + 3.5, r=1.7, class_="draw") for dot in bar.dots]
    if across.low > 0:
        return tag("g", name, _whisker(bar, middle, across), point, dots, number)
    return tag("g", name, body, dots, _whisker(bar, middle, across), number)


def _whisker(bar: Bar, middle: float, across: Scale) -> Html | None:
    if bar.low is None or bar.high is None:
        return None
    begin, end = across(bar.low), across(bar.high)
    ends = [tag("line", x1=x, x2=x, y1=middle - 4, y2=middle + 4) for x in (begin, end)]
    return tag("g", tag("line", x1=begin, x2=end, y1=middle, y2=middle), ends, class_="whisker")


def _words(bar: Bar, unit: str) -> str:
    return bar.words or ("" if bar.value is None else f"{bar.value:.1f}{unit}")


def _say_reach(bar: Bar) -> str:
    return "" if bar.low is None or bar.high is None else f" ({bar.low:.1f} to {bar.high:.1f})"


def shortened(name: str, room: float | int) -> str:
    """A name that fits."""
    most = max(int(room / LETTER_WIDTH), 4)
    return name if len(name) <= most else name[: most - 1] + "…"
