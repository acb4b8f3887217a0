"""Which variants are compared: one setting at a time, and each two once."""

import dataclasses

from caev2.ablate.comparisons import comparisons_of, steps_along_axes
from caev2.ablate.differences import compare
from tests.ablate.made_up import averages, supervision, views


def test_steps_change_one_axis_and_nothing_else():
    outcome = averages()
    found = {(step.variant, step.reference): step for step in steps_along_axes(outcome, "knn")}
    assert len(found) == 3 + 4
    for (variant, reference), step in found.items():
        settings, others = (outcome.of(one)[0].settings for one in (variant, reference))
        assert {name for name in settings if settings[name] != others[name]} == {step.axis}
        assert others[step.axis] == next(axis.baseline for axis in outcome.axes if axis.name == step.axis)
        assert step.difference == compare(outcome.of(variant), outcome.of(reference), "knn")


def test_every_comparison_of_two_axes_counts_once():
    # five with the baseline, and four others along an axis, in each of two metrics
    assert len(comparisons_of([averages()])) == 2 * (5 + 4)


def test_one_axis_has_no_steps_but_those_to_the_baseline():
    assert steps_along_axes(views(), "knn") == ()
    assert len(comparisons_of([views()])) == 2 * 5


def test_what_two_grids_compare_is_one_comparison_also_the_other_way_round():
    one = supervision()
    turned = dataclasses.replace(one, grid="turned", baseline="tokens=visible")
    alone, both = comparisons_of([one]), comparisons_of([one, turned])
    # visible against both is there already; masked against visible, in four metrics, is new
    assert (len(alone), len(both)) == (2 * 4, 3 * 4)
