"""Numbers over steps as lines, each named where it ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from caev2.report.drawing.frame import WIDTH, drawing, letters
from caev2.report.drawing.markup import Html, say_number, tag
from caev2.report.drawing.scale import Scale, say_tick, span, ticks

_HEIGHT, _LEFT, _TOP, _BOTTOM = 240, 42, 14, 30
_LETTER = 15  # between two names of lines, at least
_MOST_POINTS = 400  # of a line: more than a drawing has pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of numbers; none where there is no number, which cuts the line."""

    name: str
    """Empty: the line needs none."""
    colour: str
    """A class of the style sheet: `blue`."""
    points: tuple[tuple[float, float | None], ...]
    """Step and number, in order."""

    @property
    def last(self) -> tuple[float, float] | None:
        """The last number there is."""
        return next(((x, y) for x, y in reversed(self.points) if y is not None), None)


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    unit: str = "",
    digits: int = 3,
    from_zero: bool = False,
    ceiling: float | None = None,
) -> Html:
    """Lines over a common axis of steps.

    Args:
        lines: At least one of them has a number.
        title: What the numbers are.
        unit: Behind the last numbers.
        digits: Of the last numbers.
        from_zero: Whether the axis begins at 0.
        ceiling: What the axis does not go beyond.
    """
    values = [y for line in lines for _, y in line.points if y is not None]
    low, high = span(values, from_zero=from_zero)
    if ceiling is not None:
        high = min(high, max(ceiling, *values))
    ends = _names_at_ends(lines, unit, digits)
    right = WIDTH - 14 - max(7.2 * max(map(len, ends)), 34)
    steps = [x for line in lines for x, _ in line.points]
    across = Scale(low=min(steps), high=max(max(steps), min(steps) + 1), begin=_LEFT, end=right)
    up = Scale(low=low, high=high, begin=_HEIGHT - _BOTTOM, end=_TOP)
    about = "; ".join(_say_course(line, unit, digits) for line in lines if line.last)
    marks = [*_grid(across, up), *(_path(line, across, up) for line in lines), *_ends(lines, ends, across, up)]
    return drawing(*marks, width=WIDTH, height=_HEIGHT, title=title, about=about)


def _grid(across: Scale, up: Scale) -> list[Html]:
    marks = []
    for value in ticks(up.low, up.high):
        marks.append(tag("line", x1=across.begin, x2=across.end, y1=up(value), y2=up(value), class_="grid"))
        marks.append(letters(across.begin - 6, up(value) + 4, say_tick(value), anchor="end"))
    for value in (value for value in ticks(across.low, across.high, 4) if value == round(value)):
        marks.append(letters(across(value), up.begin + 18, say_tick(value), anchor="middle"))
    marks.append(letters(WIDTH - 2, up.begin + 18, "step", anchor="end"))
    return marks


def _path(line: Line, across: Scale, up: Scale) -> Html:
    """The line; a number between two gaps is a dot."""
    points, steps = thinned(line.points), []
    for place, (x, y) in enumerate(points):
        if y is not None:
            begins = place == 0 or points[place - 1][1] is None
            steps.append(f"{'M' if begins else 'L'}{say_number(float(across(x)))} {say_number(float(up(y)))}")
    alone = [(x, y) for x, y in _alone(points) if y is not None]
    dots = [tag("circle", cx=across(x), cy=up(y), r=2.5, class_=f"fill-{line.colour}") for x, y in alone]
    return tag("g", tag("path", d=" ".join(steps), class_=f"line stroke-{line.colour}"), dots)


def _alone(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """Points that no line goes through."""
    known = [False, *(y is not None for _, y in points), False]
    return [point for place, point in enumerate(points, start=1) if not (known[place - 1] or known[place + 1])]


def thinned(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """Some of the points, evenly, the first and the last among them."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    places = [round(number * (len(points) - 1) / (_MOST_POINTS - 1)) for number in range(_MOST_POINTS)]
    return [points[place] for place in places]


def _names_at_ends(lines: Sequence[Line], unit: str, digits: int) -> list[str]:
    return [f"{line.name} {line.last[1]:.{digits}f}{unit}".strip() if line.last else "" for line in lines]


def _ends(lines: Sequence[Line], names: Sequence[str], across: Scale, up: Scale) -> list[Html]:
    """Dots where lines end, and their names beside them, apart from each other."""
    shown = [(line, name, up(line.last[1])) for line, name in zip(lines, names, strict=True) if line.last]
    shown.sort(key=lambda one: one[2])
    places = spread_apart([place for *_, place in shown], _LETTER, _TOP, up.begin)
    marks = []
    for (line, name, place), beside in zip(shown, places, strict=True):
        x = across(line.last[0]) if line.last else 0.0
        marks.append(tag("circle", cx=x, cy=place, r=3, class_=f"fill-{line.colour}"))
        marks.append(letters(across.end + 8, beside + 4, name, class_=f"end ink-{line.colour}"))
    return marks


def spread_apart(places: Sequence[float], least: float | int, low: float | int, high: float | int) -> list[float]:
    """Places in rising order moved so that no two are closer than `least`, and within a range if they fit in it."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + least) if moved else max(place, low))
    limit = float(high)
    for number in range(len(moved) - 1, -1, -1):
        moved[number] = min(moved[number], limit)
        limit = moved[number] - least
    assert all(b - a >= least - 1e-6 for a, b in pairwise(moved))
    return moved


def _say_course(line: Line, unit: str, digits: int) -> str:
    first = next(y for _, y in line.points if y is not None)
    assert line.last is not None, "only lines with a number are told"
    return f"{line.name or 'it'} goes from {first:.{digits}f}{unit} to {line.last[1]:.{digits}f}{unit}".strip()
