"""Intervals against scipy, and that they cover what they promise to cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from scipy.stats import bootstrap as scipy_bootstrap

from caev2.errors import SourceError
from caev2.eval.interval import bootstrap, wilson


@given(st.integers(1, 10**6).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilson_equals_scipy(counts):
    right, total = counts
    found, oracle = wilson(right, total), binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert found.value == right / total
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilson_at_another_confidence_equals_scipy():
    oracle = binomtest(13, 40).proportion_ci(0.8, method="wilson")
    found = wilson(13, 40, confidence=0.8)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@pytest.mark.parametrize(("total", "truth"), [(100, 0.9), (1000, 0.5), (5000, 0.97)])
def test_wilson_covers_the_truth_about_nineteen_times_in_twenty(total, truth):
    # exact: the probability of every count whose interval holds the truth
    intervals = [wilson(right, total) for right in range(total + 1)]
    holds = [interval.low <= truth <= interval.high for interval in intervals]
    assert binom.pmf(np.arange(total + 1), total, truth)[holds].sum() == pytest.approx(0.95, abs=0.015)


def test_an_accuracy_prints_in_percent():
    assert str(wilson(4312, 5000)) == "86.2 (85.3-87.2)"


def test_bootstrap_agrees_with_scipy_and_with_wilson():
    right = np.arange(2000) % 7 > 1
    found = bootstrap(right, seed=0)
    oracle = scipy_bootstrap(
        (right,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=0.002)
    by_formula = wilson(int(right.sum()), 2000)
    assert (found.low, found.high) == pytest.approx((by_formula.low, by_formula.high), abs=0.002)
    assert found.value == right.mean()


def test_bootstrap_is_a_function_of_its_seed():
    right = np.arange(300) % 3 > 0
    few = [bootstrap(right, seed=seed, resamples=20) for seed in (1, 1, 2)]
    assert few[0] == few[1]
    assert few[0] != few[2]


def test_bootstrap_of_only_right_answers_is_a_point():
    found = bootstrap(np.ones(50, dtype=bool), seed=0)
    assert (found.low, found.value, found.high) == (1, 1, 1)


def test_no_answers_have_no_accuracy():
    with pytest.raises(SourceError, match="0 images"):
        wilson(0, 0)
    with pytest.raises(SourceError, match="0 images"):
        bootstrap(np.zeros(0, dtype=bool), seed=0)
