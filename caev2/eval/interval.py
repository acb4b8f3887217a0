"""How sure an accuracy is: the 95 % interval of Wilson, the bootstrap, and the spread of several draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np
from jaxtyping import Bool

from caev2.errors import SourceError
from caev2.store.draws import Draws


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """A share of right answers and the interval that holds the true one; all three in 0 .. 1."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """In percent: `86.2 (85.2-87.1)`."""
        return f"{100 * self.value:.1f} ({100 * self.low:.1f}-{100 * self.high:.1f})"


def wilson(right: int, total: int, confidence: float = 0.95) -> Accuracy:
    """The accuracy `right / total` with its score interval (Wilson 1927).

    Unlike value ± 1.96 standard errors it stays inside 0 .. 1 and does not shrink to a point at 0 or 1.

    Raises:
        SourceError: There was nothing to answer.
    """
    if total < 1:
        raise SourceError("There is no accuracy over 0 images. Give a val split with images.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    value = right / total
    centre = (value + z**2 / (2 * total)) / (1 + z**2 / total)
    reach = z / (1 + z**2 / total) * (value * (1 - value) / total + z**2 / (4 * total**2)) ** 0.5
    # at 0 and 1 the exact end is the value itself; rounding may push it past
    return Accuracy(value=value, low=min(max(centre - reach, 0.0), value), high=max(min(centre + reach, 1.0), value))


def bootstrap(
    right: Bool[np.ndarray, " image"], *, seed: int, resamples: int = 2_000, confidence: float = 0.95
) -> Accuracy:
    """The accuracy with the percentile interval of seeded resamples with replacement (Efron 1979).

    Raises:
        SourceError: There was nothing to answer.
    """
    total = len(right)
    if total < 1:
        raise SourceError("There is no accuracy over 0 images. Give a val split with images.")
    draws = Draws(seed, "bootstrap", total)
    # the remainder of a 64-bit word by a number of images is uniform to one part in a million million
    means = [right[draws.words(total) % np.uint64(total)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Accuracy(value=float(right.mean()), low=float(low), high=float(high))


def spread(values: Sequence[float]) -> Accuracy:
    """The mean of several accuracies, with one standard deviation to both sides, inside 0 .. 1."""
    mean, reach = fmean(values), stdev(values) if len(values) > 1 else 0.0
    return Accuracy(value=mean, low=max(mean - reach, 0.0), high=min(mean + reach, 1.0))
