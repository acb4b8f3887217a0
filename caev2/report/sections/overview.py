"""All grids at a glance: of each, how far its variants are from the baseline in the most telling metric."""

from collections.abc import Sequence

from caev2.ablate.differences import Finding, find_differences
from caev2.ablate.outcome import GridOutcome
from caev2.ablate.sentences import say_chance
from caev2.ablate.wording import is_accuracy, label_of, say_difference, scale_of, title_of
from caev2.report.drawing.differences import Away, difference_chart
from caev2.report.drawing.frame import figure
from caev2.report.drawing.markup import Html, tag
from caev2.report.reading.studies import Grid
from caev2.report.sections.section import charts

_COLOURS = {"better": "green", "worse": "orange"}


def overview(grids: Sequence[Grid]) -> list[Html]:
    """A chart for each grid that has something to compare, after what is true of all of them."""
    outcomes = [grid.outcome for grid in grids if grid.outcome is not None]
    drawn = [chart for outcome in outcomes if (chart := _chart(outcome)) is not None]
    if not drawn:
        return []
    quick = "These are quick forms: small, short runs, whose numbers say little of the full ones. "
    words = (
        "Points are mean differences to the baseline over pairs of runs with equal seeds, with two standard errors to "
        "both sides. Full ones are claimed: better in green, worse in orange. Hollow ones are not resolved. "
    )
    lead = tag("p", words, quick if any(one.quick for one in outcomes) else None, *say_chance(outcomes))
    return [lead, charts(drawn)]


def _chart(outcome: GridOutcome) -> Html | None:
    found = [one for one in find_differences(outcome) if one.metric in outcome.metrics[:1] and one.difference]
    rows = [_away(outcome, one) for one in found]
    if not any(row.value is not None for row in rows):
        return None
    metric = outcome.metrics[0]
    unit = ", points" if is_accuracy(metric) else ""
    against = f"{title_of(metric)}{unit}, against {label_of(outcome, outcome.baseline)}"
    return figure(difference_chart(rows, title=f"{outcome.title}: {against}"), outcome.title, against)


def _away(outcome: GridOutcome, finding: Finding) -> Away:
    name, difference = label_of(outcome, finding.variant), finding.difference
    if difference is None or difference.mean is None:
        return Away(name=name, value=None, words=difference.reason if difference is not None else "")
    scale, error = scale_of(finding.metric), difference.standard_error
    return Away(
        name=name,
        value=scale * difference.mean,
        reach=None if error is None else 2 * scale * error,
        colour=_COLOURS.get(difference.verdict, "grey"),
        filled=difference.is_claimed,
        words=say_difference(difference, finding.metric).partition(",")[0],
    )
