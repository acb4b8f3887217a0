"""What a grid's numbers allow one to say: means over seeds, and paired differences to the baseline."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from statistics import fmean, stdev
from typing import Any, Literal

from caev2.ablate.outcome import GridOutcome, RunOutcome

Verdict = Literal["better", "worse", "not resolved", "not comparable"]

CLAIM_ERRORS = 2.0
"""Standard errors that a difference must exceed before a direction is claimed."""
LEAST_PAIRS = 2
"""Pairs that a standard error takes."""
_ROUNDING = 1e-12
"""Shares of whole images differ by more; below it, relative to the values, numbers are equal but for rounding."""
LOWER_IS_BETTER = ("loss",)
LOSS_DEPENDS_ON = ("loss", "target", "mask")
"""Parts of a recipe: where one of them differs, the loss is a mean of something else."""
COSINES_DEPEND_ON = ("target", "loss.target_norm")
"""A cosine is taken to the target in the form that is learnt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How a variant stands to another one, over the seeds that both have."""

    mean: float | None
    """Variant minus reference; none: there is no pair, or the two are not comparable."""
    standard_error: float | None
    """Of the mean: standard deviation of the differences / sqrt(pairs); none with fewer than two pairs."""
    pairs: int
    verdict: Verdict
    reason: str = ""
    """Why there is no direction, where the numbers alone do not say it."""

    @property
    def is_judged(self) -> bool:
        """Whether a direction could have been claimed: there are pairs, and they do not all differ by the same."""
        return bool(self.standard_error)

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
    """Runs that failed, or whose number is not finite. A run that ends without such a number has not failed."""
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
    runs = outcome.of(variant)
    by_seed = values_by_seed(runs, metric)
    is_baseline = variant == outcome.baseline
    return Finding(
        variant=variant,
        metric=metric,
        by_seed=by_seed,
        failed=sum(run.failure is not None or metric in run.scores for run in runs) - len(by_seed),
        difference=None if is_baseline else compare(runs, outcome.of(outcome.baseline), metric),
    )


def values_by_seed(runs: Sequence[RunOutcome], metric: str) -> dict[int, float]:
    """The numbers of those runs that have one."""
    found = {run.seed: run.scores[metric].value for run in runs if metric in run.scores and run.failure is None}
    return {seed: value for seed, value in found.items() if math.isfinite(value)}


def compare(runs: Sequence[RunOutcome], reference: Sequence[RunOutcome], metric: str) -> Difference:
    """The paired difference between the runs of two variants, unless the metric means another thing in each."""
    reason = _why_not_comparable(runs, reference, metric)
    if reason:
        pairs = len(values_by_seed(runs, metric).keys() & values_by_seed(reference, metric).keys())
        return Difference(mean=None, standard_error=None, pairs=pairs, verdict="not comparable", reason=reason)
    return pair(
        values_by_seed(runs, metric), values_by_seed(reference, metric), lower_is_better=metric in LOWER_IS_BETTER
    )


def pair(values: Mapping[int, float], reference: Mapping[int, float], *, lower_is_better: bool = False) -> Difference:
    """The paired difference between numbers by seed.

    What a seed does to both variants alike cancels. A direction is claimed only if the mean difference exceeds twice
    its standard error. Equal differences in every pair leave no spread to judge by, whatever they are: shares of so
    many images are often equal by chance, so no direction is claimed either.
    """
    seeds = sorted(values.keys() & reference.keys())
    differences = [values[seed] - reference[seed] for seed in seeds]
    if len(seeds) < LEAST_PAIRS:
        return Difference(
            mean=fmean(differences) if differences else None,
            standard_error=None,
            pairs=len(seeds),
            verdict="not resolved",
            reason="one pair" if seeds else "no pair",
        )
    mean, error = fmean(differences), stdev(differences) / math.sqrt(len(seeds))
    if error <= _ROUNDING * max(abs(one[seed]) for one in (values, reference) for seed in seeds):
        is_zero = all(values[seed] == reference[seed] for seed in seeds)
        reason = "equal in every pair" if is_zero else "the same in every pair"
        return Difference(mean=mean, standard_error=0.0, pairs=len(seeds), verdict="not resolved", reason=reason)
    verdict: Verdict = "not resolved"
    if abs(mean) > CLAIM_ERRORS * error:
        verdict = "better" if (mean < 0) == lower_is_better else "worse"
    return Difference(mean=mean, standard_error=error, pairs=len(seeds), verdict=verdict)


def _why_not_comparable(runs: Sequence[RunOutcome], reference: Sequence[RunOutcome], metric: str) -> str:
    """Loss and cosines are measured in training, against the store's own latents; accuracies are not."""
    parts = _depends_on(metric)
    if not parts:
        return ""
    differing = [
        part.rpartition(".")[2].replace("_", " ")
        for part in parts
        if _settings_of(runs, part) != _settings_of(reference, part)
    ]
    if {run.store for run in runs} != {run.store for run in reference}:
        differing.append("store")
    return f"another {' and '.join(differing)}" if differing else ""


def _depends_on(metric: str) -> tuple[str, ...]:
    """Parts of a recipe that decide what a number of training is measured on."""
    if metric == "loss":
        return LOSS_DEPENDS_ON
    return COSINES_DEPEND_ON if metric.startswith("cosine") else ()


def is_one_measure(outcome: GridOutcome, metric: str) -> bool:
    """Whether a number means the same in all variants."""
    return all(
        not _why_not_comparable(outcome.of(variant), outcome.of(outcome.baseline), metric)
        for variant in outcome.variants
    )


def _settings_of(runs: Sequence[RunOutcome], part: str) -> list[Any]:
    found = [reduce(lambda at, name: (at or {}).get(name), part.split("."), run.recipe) for run in runs]
    return [one for place, one in enumerate(found) if one not in found[:place]]


def place_of(outcome: GridOutcome, variant: str) -> tuple[str, ...]:
    """The value of a variant on each axis."""
    settings = outcome.of(variant)[0].settings
    return tuple(str(settings.get(axis.name)) for axis in outcome.axes)
