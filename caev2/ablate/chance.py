"""How many directions chance alone would claim."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from caev2.ablate.differences import CLAIM_ERRORS, Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """How far claims of a direction can be trusted when many comparisons are made."""

    judged: int
    """Comparisons of at least two pairs."""
    claimed: int
    """Those in which a direction is claimed."""
    expected: float | int
    """How many claims there would be on average, were there no difference anywhere."""
    pairs: tuple[int, ...]
    """The numbers of pairs that comparisons had."""


def count_claims(differences: Iterable[Difference]) -> Chance:
    """Count comparisons, claims, and what chance alone would claim."""
    judged = [one for one in differences if one.is_judged]
    return Chance(
        judged=len(judged),
        claimed=sum(one.is_claimed for one in judged),
        expected=math.fsum(chance_of_a_claim(one.pairs) for one in judged),
        pairs=tuple(sorted({one.pairs for one in judged})),
    )


def chance_of_a_claim(pairs: int) -> float:
    """How often a direction is claimed where there is none: P(|t| > 2) of Student's t with `pairs` - 1 degrees.

    It takes differences that are normally distributed. The finite sums are 26.7.3 and 26.7.4 of Abramowitz and Stegun.
    """
    degrees = pairs - 1
    angle = math.atan(CLAIM_ERRORS / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    if degrees == 1:
        return 1 - 2 * angle / math.pi
    is_odd = degrees % 2
    term = cosine if is_odd else 1.0
    total = term
    for power in range(2 + is_odd, degrees - 1, 2):
        term *= cosine**2 * (power - 1) / power
        total += term
    inside = 2 / math.pi * (angle + sine * total) if is_odd else sine * total
    return 1 - inside
