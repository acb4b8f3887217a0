"""What the numbers of a grid allow one to say. The names are those of `caev2.ablate.differences`."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Literal

from caev2.ablate.outcome import GridOutcome

Verdict = Literal["better", "worse", "not resolved", "not comparable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How a variant stands to the baseline, over the seeds that both have."""

    mean: float | None
    """Variant minus baseline; none: there is no pair."""
    standard_error: float | None
    """Of the mean; none with fewer than two pairs."""
    pairs: int
    verdict: Verdict
    reason: str = ""
    """Why there is no direction, where the numbers alone do not say it."""

    @property
    def is_claimed(self) -> bool:
        """Whether a direction is claimed."""
        return self.verdict in ("better", "worse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is known of a variant in one metric."""

    variant: str
    metric: str
    by_seed: Mapping[int, float]
    failed: int
    """Runs without this number."""
    difference: Difference | None
    """To the baseline; none for the baseline itself."""

    @property
    def mean(self) -> float | None:
        """Over seeds."""
        return fmean(self.by_seed.values()) if self.by_seed else None

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation over seeds; one seed has none."""
        return stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None


def find_differences(outcome: GridOutcome) -> tuple[Finding, ...]:
    """Every variant in every metric that the table shows, in the order of the table."""
    return tuple(_find(outcome, variant, metric) for variant in outcome.variants for metric in outcome.metrics)


def _find(outcome: GridOutcome, variant: str, metric: str) -> Finding:
    values, baseline = (_by_seed(outcome, name, metric) for name in (variant, outcome.baseline))
    return Finding(
        variant=variant,
        metric=metric,
        by_seed=values,
        failed=len(outcome.of(variant)) - len(values),
        difference=None if variant == outcome.baseline else _pair(values, baseline, metric == "loss"),
    )


def _by_seed(outcome: GridOutcome, variant: str, metric: str) -> dict[int, float]:
    return {run.seed: float(run.scores[metric].value) for run in outcome.of(variant) if metric in run.scores}


def _pair(values: Mapping[int, float], baseline: Mapping[int, float], lower_is_better: bool) -> Difference:
    """A direction is claimed only where the mean difference exceeds twice its standard error."""
    pairs = [values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())]
    mean = fmean(pairs) if pairs else None
    if mean is None or len(pairs) < 2:
        reason = "one pair" if pairs else "no pair"
        return Difference(mean=mean, standard_error=None, pairs=len(pairs), verdict="not resolved", reason=reason)
    error = stdev(pairs) / sqrt(len(pairs))
    claimed: Verdict = "better" if (mean < 0) == lower_is_better else "worse"
    verdict = claimed if error > 0 and abs(mean) > 2 * error else "not resolved"
    return Difference(mean=mean, standard_error=error, pairs=len(pairs), verdict=verdict)
