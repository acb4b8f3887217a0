"""What was found, in plain sentences made of the verdicts and of nothing else."""

from collections.abc import Sequence

from caev2.ablate.chance import chance_of_a_claim, count_claims
from caev2.ablate.comparisons import comparisons_of, steps_along_axes
from caev2.ablate.differences import Difference, Verdict, find_differences, place_of
from caev2.ablate.outcome import GridOutcome
from caev2.ablate.wording import is_accuracy, join, label_of, say_difference, say_setting, say_verdict, title_of

Compared = Sequence[tuple[str, Difference]]
"""Names, and how what they name stands to one reference."""
_ORDER: tuple[Verdict, ...] = ("better", "worse", "not resolved", "not comparable")


def say_findings(outcome: GridOutcome, metric: str, *, with_numbers: bool = True) -> list[str]:
    """The sentences about a metric: along each axis, where there are several; else against the baseline.

    Args:
        outcome: The grid.
        metric: What is spoken of.
        with_numbers: Whether sentences along axes, which are long, have them.
    """
    if not any(metric in run.scores for run in outcome.runs):
        return [f"{title_of(metric)}: no run has it."]
    if len(outcome.axes) > 1:
        return _say_axes(outcome, metric, with_numbers)
    found = [one for one in find_differences(outcome) if one.metric == metric and one.difference is not None]
    compared = [(label_of(outcome, one.variant), one.difference) for one in found if one.difference is not None]
    return say_compared(title_of(metric), compared, label_of(outcome, outcome.baseline), metric)


def say_compared(subject: str, compared: Compared, reference: str, metric: str) -> list[str]:
    """A sentence for each verdict that there is."""
    sentences = []
    for verdict in _ORDER:
        those = [(name, one) for name, one in compared if one.verdict == verdict]
        if those:
            sentences.append(f"{subject}: {_say(those, reference, metric)}.")
    return sentences


def _say(those: Compared, reference: str, metric: str) -> str:
    verdict = those[0][1].verdict
    words = {"not resolved": f"against {reference} not resolved", "not comparable": f"not compared with {reference}"}
    if len(those) == 1 and verdict == "not resolved":
        return f"{those[0][0]} against {reference}: not resolved ({_detail(those, metric)[0]})"
    if len(those) == 1 and verdict in ("better", "worse"):
        return f"{those[0][0]} is {say_verdict(verdict, metric)} than {reference} ({_detail(those, metric)[0]})"
    begin = words.get(verdict, f"{say_verdict(verdict, metric)} than {reference}")
    return f"{begin}: {_listed(those, metric)}"


def _listed(those: Compared, metric: str) -> str:
    details = _detail(those, metric)
    return join([f"{name} ({detail})" for (name, _), detail in zip(those, details, strict=True)])


def _detail(those: Compared, metric: str) -> list[str]:
    """Each difference in words; the unit and the number of pairs are said with the first of so many pairs."""
    points = " points" if is_accuracy(metric) else ""
    details, told = [], None
    for _, difference in those:
        unit = "" if difference.pairs == told else points
        text = say_difference(difference, metric, unit)
        if difference.is_judged and told != difference.pairs:
            text, told = text if difference.reason else f"{text} over {difference.pairs} pairs", difference.pairs
        details.append(text)
    return details


def _say_axes(outcome: GridOutcome, metric: str, with_numbers: bool) -> list[str]:
    """For each value of each axis: how it stands to the axis' baseline at every value of the others."""
    steps = steps_along_axes(outcome, metric)
    sentences = []
    for number, axis in enumerate(outcome.axes):
        for value in axis.values:
            those = [
                (_label_without(outcome, step.variant, number), step.difference)
                for step in steps
                if (step.axis, step.value) == (axis.name, value)
            ]
            if those:
                subject = f"{title_of(metric)}, {say_setting(axis.name, value)} against {axis.baseline}"
                sentences.append(f"{subject}: {_say_where(those, metric, with_numbers)}.")
    return sentences


def _say_where(those: Compared, metric: str, with_numbers: bool) -> str:
    parts = []
    for verdict in _ORDER:
        some = [(name, one) for name, one in those if one.verdict == verdict]
        if some:
            places = _listed(some, metric) if with_numbers else join([name for name, _ in some])
            parts.append(f"{say_verdict(verdict, metric)} at {places}")
    return "; ".join(parts)


def _label_without(outcome: GridOutcome, variant: str, number: int) -> str:
    """A variant by its settings on all axes but one."""
    settings = zip(outcome.axes, place_of(outcome, variant), strict=True)
    return " with ".join(
        say_setting(axis.name, value) for place, (axis, value) in enumerate(settings) if place != number
    )


def say_chance(outcomes: Sequence[GridOutcome]) -> list[str]:
    """How many comparisons there are, how many claims, and how many of them chance alone would make."""
    chance = count_claims(one.difference for one in comparisons_of(outcomes))
    if not chance.judged:
        return ["No comparison has two pairs of runs that differ unlike, so no direction is claimed."]
    shares = [f"{100 * chance_of_a_claim(pairs):.1f} % of those over {pairs} pairs" for pairs in chance.pairs]
    expected = f"{chance.expected:.0f}" if chance.expected >= 10 else f"{chance.expected:.1f}"
    return [
        f"Comparisons made, each once: {chance.judged}. Directions claimed: {chance.claimed}. Were there no difference "
        f"anywhere, chance alone would claim about {expected} ({join(shares)}). Trust a claim that is many standard "
        "errors large, or that several metrics share, more than one that barely passes."
    ]
