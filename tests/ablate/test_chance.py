"""How many claims chance makes: scipy's numbers, and those of noise."""

import math

import pytest
from scipy import stats

from caev2.ablate.chance import chance_of_a_claim, count_claims
from caev2.ablate.differences import find_differences, pair
from tests.ablate.made_up import supervision


@pytest.mark.parametrize("pairs", range(2, 40))
def test_chance_is_that_of_students_t(pairs):
    assert chance_of_a_claim(pairs) == pytest.approx(2 * stats.t.sf(2, pairs - 1), rel=1e-10)


def test_two_and_three_pairs_are_claimed_by_chance_as_often_as_the_tables_say():
    assert [round(chance_of_a_claim(pairs), 3) for pairs in (2, 3)] == [0.295, 0.184]


def test_claims_of_noise_are_as_many_as_are_foretold():
    noise = stats.norm.rvs(size=(4000, 2, 3), random_state=7)
    found = [pair(dict(enumerate(map(float, a))), dict(enumerate(map(float, b)))) for a, b in noise]
    count = count_claims(found)
    assert (count.judged, count.pairs) == (4000, (3,))
    assert count.expected == pytest.approx(4000 * chance_of_a_claim(3))
    assert abs(count.claimed - count.expected) < 4 * math.sqrt(count.expected)


def test_what_could_not_be_claimed_is_no_comparison():
    found = [one.difference for one in find_differences(supervision()) if one.difference]
    # two variants, four metrics; the losses are not comparable, the cosines differ by the same in both pairs
    assert count_claims(found).judged == 4


def test_pairs_that_all_differ_by_the_same_could_not_be_claimed():
    same = pair({0: 0.5, 1: 0.5}, {0: 0.25, 1: 0.25})
    assert (same.mean, same.standard_error, same.is_judged) == (0.25, 0.0, False)
    assert count_claims([same]).expected == 0
