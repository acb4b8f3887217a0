"""What may be said of a grid: the numbers are scipy's, and no direction is claimed that is not there."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from caev2.ablate.differences import find_differences, pair
from tests.ablate.made_up import make_outcome, supervision

shares = st.integers(0, 5000).map(lambda right: right / 5000)
two_lists = st.integers(2, 6).flatmap(
    lambda n: st.tuples(st.lists(shares, min_size=n, max_size=n), st.lists(shares, min_size=n, max_size=n))
)
OPPOSITE = {"better": "worse", "worse": "better", "not resolved": "not resolved"}


def by_seed(values) -> dict[int, float]:
    return dict(enumerate(values))


def finding(outcome, variant, metric):
    return next(one for one in find_differences(outcome) if (one.variant, one.metric) == (variant, metric))


def of_two(values, reference, **how):
    return pair(by_seed(values), by_seed(reference), **how)


@given(two_lists)
def test_mean_and_error_are_those_of_the_paired_t_test(lists):
    values, reference = lists
    found = of_two(values, reference)
    differences = [a - b for a, b in zip(values, reference, strict=True)]
    assert found.mean == pytest.approx(sum(differences) / len(differences), abs=1e-12)
    assert found.standard_error == pytest.approx(stats.sem(differences), abs=1e-12)
    assume(found.standard_error > 1e-9)
    t = stats.ttest_rel(values, reference).statistic
    assert found.is_claimed == (abs(t) > 2) or math.isclose(abs(t), 2)
    assert found.mean / found.standard_error == pytest.approx(t, rel=1e-6)


def test_a_difference_by_hand():
    # differences -0.120 and -0.126: mean -0.123, deviation 0.0042426, error 0.003
    found = finding(supervision(), "tokens=visible", "knn")
    assert (found.mean, found.deviation) == (pytest.approx(0.402), pytest.approx(0.0028284, abs=1e-7))
    assert found.difference.mean == pytest.approx(-0.123)
    assert found.difference.standard_error == pytest.approx(0.003)
    assert (found.difference.pairs, found.difference.verdict) == (2, "worse")


def test_exactly_two_errors_are_not_enough():
    # in binary fractions, so that nothing is rounded: differences 1/4 and 3/4, mean 1/2, error 1/4
    assert of_two((0.25, 0.75), (0.0, 0.0)).verdict == "not resolved"
    assert of_two((0.25 + 2**-9, 0.75 - 2**-9), (0.0, 0.0)).verdict == "better"


@given(two_lists)
def test_changing_places_changes_the_direction_only(lists):
    one, other = of_two(*lists), of_two(*reversed(lists))
    assert other.verdict == OPPOSITE[one.verdict]
    assert (other.mean, other.standard_error) == (pytest.approx(-one.mean), pytest.approx(one.standard_error))
    assert of_two(*lists, lower_is_better=True).verdict == OPPOSITE[one.verdict]


@given(two_lists, st.data())
def test_what_a_seed_does_to_both_cancels(lists, data):
    n = len(lists[0])
    effects = data.draw(st.lists(st.integers(-5000, 5000).map(lambda x: x / 4096), min_size=n, max_size=n))
    plain = of_two(*lists)
    shifted = of_two(*([value + effect for value, effect in zip(one, effects, strict=True)] for one in lists))
    assert shifted.mean == pytest.approx(plain.mean, abs=1e-9)
    assert shifted.standard_error == pytest.approx(plain.standard_error, abs=1e-9)
    assume(abs(abs(plain.mean) - 2 * plain.standard_error) > 1e-9)
    assert shifted.verdict == plain.verdict or plain.standard_error < 1e-9


@given(two_lists, st.randoms(use_true_random=False))
def test_the_order_of_seeds_does_not_matter(lists, random):
    order = list(range(len(lists[0])))
    random.shuffle(order)
    one, other = of_two(*lists), of_two(*([values[place] for place in order] for values in lists))
    assert (other.mean, other.standard_error) == (one.mean, one.standard_error)
    assert other.verdict == one.verdict


def test_only_seeds_that_both_have_make_pairs():
    found = pair({0: 0.5, 1: 0.6, 7: 0.9}, {1: 0.5, 2: 0.1, 0: 0.41})
    assert (found.pairs, found.mean) == (2, pytest.approx(0.095))


def test_one_pair_has_a_difference_and_no_error():
    found = pair({0: 0.5}, {0: 0.1, 1: 0.2})
    assert (found.mean, found.standard_error, found.verdict) == (0.4, None, "not resolved")
    assert found.reason == "one pair"
    assert not found.is_judged


def test_no_pair_has_nothing():
    found = pair({0: 0.5}, {1: 0.2})
    assert (found.mean, found.standard_error, found.reason) == (None, None, "no pair")


def test_equal_runs_are_not_resolved():
    found = of_two((0.5, 0.6), (0.5, 0.6))
    assert (found.mean, found.standard_error, found.verdict, found.reason) == (
        0.0,
        0.0,
        "not resolved",
        "equal in every pair",
    )


def test_the_same_difference_twice_is_no_certainty_be_it_exact_or_rounded():
    for lists in (((0.75, 0.5), (0.5, 0.25)), ((0.412, 0.512), (0.398, 0.498))):
        found = of_two(*lists)
        assert found.verdict == "not resolved"
        assert found.reason.startswith("the same")
        assert found.standard_error == 0
        assert found.mean != 0


def test_a_lower_loss_is_better_and_a_higher_accuracy():
    values = {("a",): {"knn": (0.5, 0.6), "loss": (0.5, 0.6)}, ("b",): {"knn": (0.3, 0.41), "loss": (0.3, 0.41)}}
    found = make_outcome({"axis": ("a", "b")}, values)
    assert finding(found, "axis=b", "knn").difference.verdict == "worse"
    assert finding(found, "axis=b", "loss").difference.verdict == "better"


@pytest.mark.parametrize(
    ("changes", "loss", "cosine"),
    [
        ({"recipes": {("b",): {"loss": {"distance": "mse"}}}}, "another loss", ""),
        ({"recipes": {("b",): {"mask": {"count": 40}}}}, "another mask", ""),
        ({"recipes": {("b",): {"target": "post_norm"}}}, "another target", "another target"),
        ({"recipes": {("b",): {"loss": {"target_norm": "whiten"}}}}, "another loss", "another target norm"),
        ({"stores": {("b",): "int8"}}, "another store", "another store"),
        ({"stores": {("b",): None}}, "another store", "another store"),
        ({"recipes": {("b",): {"optimizer": {"lr": 1.0}}}}, "", ""),
    ],
)
def test_what_means_another_thing_is_not_compared(changes, loss, cosine):
    by_metric = {"knn": (0.5, 0.7), "loss": (0.5, 0.7), "cosine_masked": (0.5, 0.7)}
    values = {("a",): by_metric, ("b",): dict.fromkeys(by_metric, (0.1, 0.2))}
    outcome = make_outcome({"axis": ("a", "b")}, values, **changes)
    found = {metric: finding(outcome, "axis=b", metric).difference for metric in by_metric}
    assert {metric: one.reason for metric, one in found.items()} == {"knn": "", "loss": loss, "cosine_masked": cosine}
    for one in found.values():
        assert (one.verdict == "not comparable") == bool(one.reason)
        assert one.is_judged != bool(one.reason)


def test_failed_runs_drop_out_and_are_counted():
    outcome = supervision(failures={(("visible",), 1): "out of memory"})
    found = finding(outcome, "tokens=visible", "knn")
    assert (found.failed, found.by_seed, found.deviation) == (1, {0: 0.4}, None)
    assert (found.difference.pairs, found.difference.reason) == (1, "one pair")


def test_a_number_that_is_not_finite_counts_as_failed():
    values = {("a",): {"loss": (0.5, 0.6)}, ("b",): {"loss": (math.nan, 0.6)}}
    found = finding(make_outcome({"axis": ("a", "b")}, values), "axis=b", "loss")
    assert (found.failed, found.mean) == (1, 0.6)


def test_a_kind_of_number_that_a_run_does_not_have_is_no_failure():
    values = {("a",): {"cosine_masked": (0.5, 0.6)}, ("b",): {}}
    found = finding(make_outcome({"axis": ("a", "b")}, values), "axis=b", "cosine_masked")
    assert (found.failed, found.mean, found.difference.reason) == (0, None, "no pair")


def test_without_a_baseline_nothing_is_resolved():
    failures = {(("both",), seed): "killed" for seed in (0, 1)}
    outcome = supervision(failures=failures)
    assert {one.difference.verdict for one in find_differences(outcome) if one.difference} <= {
        "not resolved", "not comparable",
    }  # fmt: skip
    assert finding(outcome, "tokens=both", "knn").mean is None
