"""How metrics, variants and their numbers are spelled, in tables and pictures alike."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from caev2.ablate.differences import Difference, Finding, Verdict, place_of
from caev2.ablate.outcome import GridOutcome, Setting
from caev2.recipe import spell

_TITLES = {
    "knn": "kNN",
    "linear": "linear probe",
    "attentive": "attentive probe",
    "loss": "loss",
    "cosine_class": "cosine, class token",
    "cosine_visible": "cosine, visible tokens",
    "cosine_masked": "cosine, masked tokens",
}
_ROUNDING = 1e-6
_NEEDS_ITS_AXIS = {"none", "yes", "no", "on", "off", "true", "false", "all"}
"""Values that say nothing without the name of what they are values of."""


def title_of(metric: str) -> str:
    """A metric in words."""
    return _TITLES.get(metric, metric.replace("_", " "))


def is_accuracy(metric: str) -> bool:
    """Whether a metric is a share of right answers, told in percent; others are measured in training."""
    return metric != "loss" and not metric.startswith("cosine")


def scale_of(metric: str) -> float:
    """By what values are multiplied before they are shown."""
    return 100.0 if is_accuracy(metric) else 1.0


def say_axis(name: str) -> str:
    """An axis in words."""
    return name.replace("_", " ")


def number_of(value: Setting) -> float | None:
    """A setting as a number, if it is one."""
    try:
        number = None if isinstance(value, bool) or value is None else float(value)
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None


def label_of(outcome: GridOutcome, variant: str) -> str:
    """A variant as short as it can be understood: `visible`, `views 8`, `mask 32, group_mean`."""
    parts = zip(outcome.axes, place_of(outcome, variant), strict=True)
    return ", ".join(say_setting(axis.name, value) for axis, value in parts) or variant


def say_setting(axis: str, value: str) -> str:
    """A value, with the name of its axis where it says nothing alone."""
    needs = number_of(value) is not None or value.lower() in _NEEDS_ITS_AXIS
    return f"{say_axis(axis)} {value}" if needs else value


def say_settings(settings: Mapping[str, Any]) -> str:
    """Settings as `--set` has them: `epochs=20, mask.kind=random`."""
    return ", ".join(f"{name}={spell(value)}" for name, value in settings.items())


def say_absence(finding: Finding) -> str:
    """Why a variant has no number: its runs failed, or they have none of this kind."""
    return "failed" if finding.failed else "not measured"


def say_value(finding: Finding) -> str:
    """Mean ± standard deviation over seeds, in percent or to three digits, and how many failed."""
    if finding.mean is None:
        return say_absence(finding)
    scale, digits = scale_of(finding.metric), 1 if is_accuracy(finding.metric) else 3
    text = f"{scale * finding.mean:.{digits}f}"
    if finding.deviation is not None:
        text += f" ± {scale * finding.deviation:.{digits}f}"
    left, total = len(finding.by_seed), len(finding.by_seed) + finding.failed
    return f"{text} ({left} of {total} seeds)" if finding.failed else text


def say_difference(difference: Difference, metric: str, unit: str = "") -> str:
    """Mean ± standard error, or why there is none; of accuracies in points.

    Args:
        difference: The difference.
        metric: What differs.
        unit: Said after the number, such as ` points`.
    """
    if difference.mean is None:
        return difference.reason
    scale, error = scale_of(metric), difference.standard_error
    digits = 1 if is_accuracy(metric) else 3
    if error:  # a small one is told to its first digit
        digits = min(max(digits, math.ceil(-math.log10(scale * error) - _ROUNDING)), digits + 2)
    text = f"{round(scale * difference.mean, digits) + 0.0:+.{digits}f}"  # never -0.0
    if difference.reason or error is None:
        return f"{text}{unit}, {difference.reason}"
    return f"{text} ± {scale * error:.{digits}f}{unit}"


def say_verdict(verdict: Verdict, metric: str) -> str:
    """A verdict; cosines and the loss are higher or lower, as they are no aim in themselves."""
    if is_accuracy(metric) or verdict in ("not resolved", "not comparable"):
        return verdict
    return "higher" if (verdict == "better") == (metric != "loss") else "lower"


def join(words: Sequence[str], last: str = " and ") -> str:
    """Words as a list in a sentence."""
    return last.join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
