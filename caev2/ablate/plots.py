"""Pictures of a grid's numbers: bars with intervals, lines over a numeric setting, a heat map of two settings."""

import itertools
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from caev2.ablate.differences import CLAIM_ERRORS, Finding, find_differences, place_of
from caev2.ablate.outcome import Axis, GridOutcome
from caev2.ablate.wording import (
    is_accuracy,
    label_of,
    number_of,
    say_absence,
    say_axis,
    say_setting,
    scale_of,
    title_of,
)
from caev2.eval.drawing import AMBER, BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, new_figure, save, undress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (BLUE, GREEN, PURPLE, SKY, AMBER, GREY)
"""Of variants other than the baseline, which is orange."""
_LABEL_COLUMNS = 34
"""Longer names go on in the next line."""
_BAR_INCHES = 0.3
_ROUNDING = 1e-6
_LEAST_NUMBERS = 3
"""A line through fewer points says no more than bars."""


def wrap(label: str) -> str:
    """A name in lines that leave room for the picture; an underscore may end a line."""
    lines = [""]
    for piece in re.findall(rf"[^\s_]{{1,{_LABEL_COLUMNS - 1}}}_?|_|\s+", label):
        if lines[-1] and len(lines[-1] + piece) > _LABEL_COLUMNS:
            lines.append("")
        lines[-1] += piece if lines[-1] else piece.lstrip()
    return "\n".join(line.rstrip() for line in lines)


def measure_of(metric: str) -> str:
    """A metric and its unit, for an axis."""
    return f"{title_of(metric)}, %" if is_accuracy(metric) else title_of(metric)


def plot_bars(outcome: GridOutcome, metric: str, path: Path) -> Path:
    """Bars of the means over seeds, with one standard deviation and each seed; beside them the paired differences."""
    findings = [one for one in find_differences(outcome) if one.metric == metric]
    heights, colours = _layout(outcome)
    lines = [wrap(_bar_label(outcome, one.variant)) for one in findings]
    rows = sum(max(1.0, 0.55 * (1 + line.count("\n"))) for line in lines) + max(heights) - len(heights)
    figure = new_figure(9.0, 1.3 + _BAR_INCHES * rows)
    bars, differences = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for height, colour, finding in zip(heights, colours, findings, strict=True):
        _draw_bar(bars, height, colour, finding)
        _draw_difference(differences, height, colour, finding)
    bars.set_yticks(heights, lines, parse_math=False)
    bars.set(ylim=(max(heights) + 0.6, -0.6), title=measure_of(metric), xlabel="mean over seeds ± one deviation")
    points = "points" if is_accuracy(metric) else ""
    differences.set(title="difference to the baseline", xlabel=f"{points} ± two standard errors".strip())
    differences.axvline(0, color=ORANGE, linewidth=1, zorder=0)
    if not any(one.difference and one.difference.mean is not None for one in findings):
        differences.set_xticks([])
    for axes in (bars, differences):
        undress(axes, "x")
        axes.tick_params(axis="y", length=0)
    return save(figure, path)


def _bar_label(outcome: GridOutcome, variant: str) -> str:
    return label_of(outcome, variant) + (" (baseline)" if variant == outcome.baseline else "")


def _layout(outcome: GridOutcome) -> tuple[list[float], list[str]]:
    """Where bars are, and their colours. With two axes, variants of one value of the first form a group."""
    places = [place_of(outcome, variant) for variant in outcome.variants]
    heights, height = [], 0.0
    for number, place in enumerate(places):
        if number:
            height += 1.6 if len(outcome.axes) == 2 and place[0] != places[number - 1][0] else 1.0
        heights.append(height)
    colours = [BLUE] * len(places)
    if len(outcome.axes) == 2:
        others = dict(zip(dict.fromkeys(place[1] for place in places), COLOURS * len(places), strict=False))
        colours = [others[place[1]] for place in places]
    return heights, [
        ORANGE if variant == outcome.baseline else colour
        for variant, colour in zip(outcome.variants, colours, strict=True)
    ]


def _draw_bar(axes: "Axes", height: float, colour: str, finding: Finding) -> None:
    if finding.mean is None:
        axes.annotate(
            say_absence(finding), (0, height), xytext=(4, 0), textcoords="offset points", va="center", color=GREY
        )
        return
    scale = scale_of(finding.metric)
    values = [scale * value for value in finding.by_seed.values()]
    error = {"xerr": scale * finding.deviation, "ecolor": BLACK, "capsize": 3} if finding.deviation is not None else {}
    axes.barh(height, scale * finding.mean, 0.78, color=colour, **error)
    axes.plot(values, [height] * len(values), "o", color="white", markeredgecolor=BLACK, markersize=3.5)
    text = f"{scale * finding.mean:.{1 if is_accuracy(finding.metric) else 3}f}"
    end = max([*values, scale * (finding.mean + (finding.deviation or 0.0)), 0.0])
    axes.annotate(text, (end, height), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
    axes.margins(x=0.14)


def _draw_difference(axes: "Axes", height: float, colour: str, finding: Finding) -> None:
    """Filled where a direction is claimed, hollow where it is not."""
    difference = finding.difference
    if difference is None:
        return
    if difference.mean is None:
        why = "not compared" if difference.verdict == "not comparable" else "no pair"
        axes.annotate(why, (0, height), xytext=(4, 0), textcoords="offset points", va="center", color=GREY, fontsize=8)
        return
    scale = scale_of(finding.metric)
    reach = None if difference.standard_error is None else scale * CLAIM_ERRORS * difference.standard_error
    face = colour if difference.is_claimed else "white"
    axes.errorbar(
        scale * difference.mean,
        height,
        xerr=reach,
        fmt="o",
        color=colour,
        markerfacecolor=face,
        capsize=3,
        markersize=6,
    )


def numeric_axis(outcome: GridOutcome) -> Axis | None:
    """The axis with the most numbers among its values, at least three, in a grid of at most two axes."""
    if len(outcome.axes) > 2:
        return None
    counts = {axis.name: sum(number_of(value) is not None for value in axis.values) for axis in outcome.axes}
    best = max(outcome.axes, key=lambda axis: counts[axis.name], default=None)
    return best if best is not None and counts[best.name] >= _LEAST_NUMBERS else None


def is_geometric(numbers: Sequence[float]) -> bool:
    """Whether each number is the one before it times the same factor."""
    ordered = sorted(numbers)
    if ordered[0] <= 0:
        return False
    factors = [after / before for before, after in itertools.pairwise(ordered)]
    return min(factors) > 1 and max(factors) <= (1 + _ROUNDING) * min(factors)


def plot_line(outcome: GridOutcome, axis: Axis, metric: str, path: Path) -> Path:
    """A metric over a numeric setting, a line for each value of the other one; values that are no number lie level."""
    number = outcome.axes.index(axis)
    found: dict[str, dict[str, list[float]]] = {}
    for finding in find_differences(outcome):
        if finding.metric == metric and finding.by_seed:
            place = place_of(outcome, finding.variant)
            other = ", ".join(place[:number] + place[number + 1 :])
            scaled = [scale_of(metric) * value for value in finding.by_seed.values()]
            found.setdefault(other, {})[place[number]] = scaled
    figure = new_figure(7.0, 3.8)
    axes = figure.subplots()
    numbers = [value for name in axis.values if (value := number_of(name)) is not None]
    if is_geometric(numbers):
        axes.set_xscale("log", base=2)
    names = [name for name in axis.values if number_of(name) is not None]
    axes.set_xticks(numbers, names)
    axes.minorticks_off()
    for colour, (other, by_value) in zip(COLOURS * len(found), found.items(), strict=False):
        _draw_line(axes, by_value, colour, other, axis.name)
    axes.set(xlabel=say_axis(axis.name), title=f"{measure_of(metric)}: mean over seeds ± one deviation")
    if axes.get_legend_handles_labels()[1]:
        others = [say_axis(one.name) for one in outcome.axes if one is not axis]
        axes.legend(frameon=False, title=", ".join(others) or None, fontsize=9)
    undress(axes)
    return save(figure, path)


def _draw_line(axes: "Axes", by_value: Mapping[str, Sequence[float]], colour: str, label: str, axis: str) -> None:
    points = sorted((x, values) for name, values in by_value.items() if (x := number_of(name)) is not None)
    style: dict[str, Any] = {"color": colour, "linewidth": 1.6, "capsize": 3, "marker": "o", "markersize": 5}
    if points:
        errors = [stdev(values) if len(values) > 1 else 0.0 for _, values in points]
        means = [fmean(values) for _, values in points]
        axes.errorbar([x for x, _ in points], means, yerr=errors, label=label or None, **style)
    for x, values in points:
        axes.plot([x] * len(values), values, ".", color=BLACK, markersize=3.5, zorder=3)
    level = {name: values for name, values in by_value.items() if number_of(name) is None}
    for dashes, (name, values) in zip((":", "--", "-.") * len(level), level.items(), strict=False):
        said = say_setting(axis, name)
        both = f"{label}, {said}" if label else said
        axes.axhline(fmean(values), color=colour if label else ORANGE, linestyle=dashes, linewidth=1.4, label=both)


def plot_heat(outcome: GridOutcome, metric: str, path: Path) -> Path:
    """A cell for each variant of a grid with two axes, its mean and deviation written in it; the baseline is framed."""
    import numpy as np
    from matplotlib.patches import Rectangle

    down, across = outcome.axes
    means = np.full((len(down.values), len(across.values)), np.nan)
    texts: dict[tuple[int, int], str] = {}
    for finding in find_differences(outcome):
        row, column = place_of(outcome, finding.variant)
        cell = down.values.index(row), across.values.index(column)
        if finding.metric == metric:
            texts[cell] = _cell_text(finding)
            means[cell] = np.nan if finding.mean is None else scale_of(metric) * finding.mean
    size = 1.6 + 1.05 * len(across.values) + 0.07 * max(map(len, down.values)), 1.5 + 0.62 * len(down.values)
    figure = new_figure(max(5.0, size[0]), max(2.6, size[1]))
    axes = figure.subplots()
    axes.imshow(np.ma.masked_invalid(means), cmap="cividis", aspect="auto")
    there = means[np.isfinite(means)]
    middle = (there.min() + there.max()) / 2 if there.size else 0.0
    for (row, column), text in texts.items():
        colour = "white" if means[row, column] < middle else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    framed = down.values.index(down.baseline) - 0.5, across.values.index(across.baseline) - 0.5
    axes.add_patch(Rectangle((framed[1], framed[0]), 1, 1, fill=False, edgecolor=ORANGE, linewidth=3, clip_on=False))
    axes.set_xticks(range(len(across.values)), [textwrap.fill(name, 12) for name in across.values], parse_math=False)
    axes.set_yticks(range(len(down.values)), list(map(wrap, down.values)), parse_math=False)
    axes.set(xlabel=say_axis(across.name), ylabel=say_axis(down.name), title=f"{measure_of(metric)} (baseline framed)")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return save(figure, path)


def _cell_text(finding: Finding) -> str:
    if finding.mean is None:
        return say_absence(finding)
    scale, digits = scale_of(finding.metric), 1 if is_accuracy(finding.metric) else 3
    spread = "" if finding.deviation is None else f"\n± {scale * finding.deviation:.{digits}f}"
    return f"{scale * finding.mean:.{digits}f}{spread}"
