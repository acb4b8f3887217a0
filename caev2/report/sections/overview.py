"""All grids at a glance: of each, how far its variants are from the baseline in the most telling metric."""

from collections.abc import Sequence

from caev2.ablate.comparisons import steps_along_axes
from caev2.ablate.differences import Difference, find_differences
from caev2.ablate.outcome import GridOutcome
from caev2.ablate.sentences import say_chance
from caev2.ablate.wording import is_accuracy, label_of, say_difference, say_setting, scale_of, title_of
from caev2.report.drawing.differences import Away, difference_chart
from caev2.report.drawing.frame import figure
from caev2.report.drawing.markup import Html, tag
from caev2.report.reading.studies import Grid
from caev2.report.sections.section import charts

_COLOURS = {"better": "green", "worse": "orange"}


def overview(grids: Sequence[Grid]) -> list[Html]:
    """A chart for each grid that has something to compare, after what is true of all of them."""
    outcomes = [grid.outcome for grid in grids if grid.outcome is not None]
    drawn = [chart for grid in grids for chart in (() if grid.outcome is None else _charts(grid, grid.outcome))]
    if not drawn:
        return []
    quick = "These are quick forms: small, short runs, whose numbers say little of the full ones. "
    words = (
        "Points are mean differences over pairs of runs with equal seeds, with two standard errors to "
        "both sides. Full ones are claimed: better in green, worse in orange. Hollow ones are not resolved. "
    )
    lead = tag("p", words, quick if any(one.quick for one in outcomes) else None, *say_chance(outcomes))
    return [lead, charts(drawn)]


def _charts(grid: Grid, outcome: GridOutcome) -> list[Html]:
    """One against the baseline; of several axes one for each, so that no two settings differ at once."""
    if not outcome.metrics:
        return []
    metric = outcome.metrics[0]
    if len(outcome.axes) == 1:
        found = [one for one in find_differences(outcome) if one.metric == metric and one.difference is not None]
        rows = [(label_of(outcome, one.variant), one.difference) for one in found if one.difference is not None]
        return _chart(grid, outcome, label_of(outcome, outcome.baseline), rows)
    charts = []
    for axis in outcome.axes:
        steps = [step for step in steps_along_axes(outcome, metric) if step.axis == axis.name]
        rows = [(label_of(outcome, step.variant), step.difference) for step in steps]
        charts += _chart(grid, outcome, f"the same with {say_setting(axis.name, axis.baseline)}", rows)
    return charts


def _chart(grid: Grid, outcome: GridOutcome, reference: str, found: Sequence[tuple[str, Difference]]) -> list[Html]:
    metric = outcome.metrics[0]
    rows = [_away(name, difference, metric) for name, difference in found]
    if not any(row.value is not None for row in rows):
        return []
    unit = ", points" if is_accuracy(metric) else ""
    against, title = f"{title_of(metric)}{unit}, against {reference}", grid.called(outcome.title)
    return [figure(difference_chart(rows, title=f"{title}: {against}"), title, against)]


def _away(name: str, difference: Difference, metric: str) -> Away:
    if difference.mean is None:
        return Away(name=name, value=None, words=difference.reason)
    scale, error = scale_of(metric), difference.standard_error
    return Away(
        name=name,
        value=scale * difference.mean,
        reach=None if error is None else 2 * scale * error,
        colour=_COLOURS.get(difference.verdict, "grey"),
        filled=difference.is_claimed,
        words=say_difference(difference, metric).partition(",")[0],
    )
