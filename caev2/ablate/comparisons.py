"""Which variants are compared with which: each with the baseline, and along each axis of several."""

from collections.abc import Iterable
from dataclasses import dataclass

from caev2.ablate.differences import Difference, compare, find_differences, place_of
from caev2.ablate.outcome import GridOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A comparison along one axis of several, all else equal."""

    axis: str
    value: str
    """Of the variant; the reference has the axis' baseline."""
    variant: str
    reference: str
    difference: Difference


def steps_along_axes(outcome: GridOutcome, metric: str) -> tuple[Step, ...]:
    """Of a grid with several axes: each variant against the one with a single axis put back to its baseline.

    Where several settings differ from the baseline of the grid at once, nobody knows which of them makes the
    difference. In a grid with one axis there is nothing that `find_differences` does not say.
    """
    by_place = {place_of(outcome, variant): variant for variant in outcome.variants}
    steps = []
    for number, axis in enumerate(outcome.axes if len(outcome.axes) > 1 else ()):
        for place, variant in by_place.items():
            reference = by_place.get((*place[:number], axis.baseline, *place[number + 1 :]))
            if reference is not None and reference != variant:
                difference = compare(outcome.of(variant), outcome.of(reference), metric)
                steps.append(
                    Step(
                        axis=axis.name,
                        value=place[number],
                        variant=variant,
                        reference=reference,
                        difference=difference,
                    )
                )
    return tuple(steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs of one variant against those of another, in one metric."""

    metric: str
    runs: frozenset[frozenset[str]]
    """Of both sides, the fingerprints: grids that share runs may make one comparison twice, or the other way round."""
    difference: Difference


def comparisons_of(outcomes: Iterable[GridOutcome]) -> tuple[Comparison, ...]:
    """Every comparison of some grids, once: with the baseline, and along the axes."""
    found = (one for outcome in outcomes for one in _comparisons(outcome))
    return tuple({(one.metric, one.runs): one for one in found}.values())


def _comparisons(outcome: GridOutcome) -> Iterable[Comparison]:
    for one in find_differences(outcome):
        if one.difference is not None:
            yield _comparison(outcome, one.metric, (one.variant, outcome.baseline), one.difference)
    for metric in outcome.metrics:
        for step in steps_along_axes(outcome, metric):
            yield _comparison(outcome, metric, (step.variant, step.reference), step.difference)


def _comparison(outcome: GridOutcome, metric: str, variants: tuple[str, str], difference: Difference) -> Comparison:
    runs = frozenset(frozenset(run.fingerprint for run in outcome.of(variant)) for variant in variants)
    return Comparison(metric=metric, runs=runs, difference=difference)
