"""The built-in grids: each says what it tests, and all of them share their baseline."""

import pytest

from caev2.ablate.built_in import built_in_grids
from caev2.ablate.expansion import expand
from caev2.recipe import fingerprint, to_mapping

FORMS = pytest.mark.parametrize("quick", [True, False])


def runs_of(quick: bool, seed: int = 0) -> dict[str, list]:
    grids = built_in_grids(quick=quick)
    return {name: [run for run in expand(grid) if run.seed == seed] for name, grid in grids.items()}


def what(run) -> str:
    """Equal for runs that are one on a study whose stores have sixteen views."""
    recipe = to_mapping(run.recipe)
    recipe["views"] = None if recipe["views"] == 16 else recipe["views"]
    return fingerprint([recipe, run.store, run.online])


def test_the_grids_are_those_of_the_table_of_contents():  # golden: folders and the pages about them are called so
    assert list(built_in_grids(quick=True)) == [
        "supervision", "distance", "target", "target-norm", "class-token", "average",
        "mask-size", "mask-kind", "regressor", "views", "codec", "jitter",
    ]  # fmt: skip
    assert list(built_in_grids(quick=True)) == list(built_in_grids(quick=False))


@FORMS
def test_each_grid_says_what_it_tests_and_who_claims_it(quick):
    for grid in built_in_grids(quick=quick).values():
        assert grid.title
        assert grid.claim.endswith(".")
        assert "2211.09799" in grid.source or grid.source.startswith("Ours")
        assert grid.quick is quick


@FORMS
def test_all_grids_of_a_form_contain_one_run_and_most_compare_with_it(quick):
    grids, runs = built_in_grids(quick=quick), runs_of(quick)
    shared = set.intersection(*({what(run) for run in of_grid} for of_grid in runs.values()))
    assert len(shared) == 1
    baselines = {name: what(run) for name in grids for run in runs[name] if run.variant == grids[name].baseline}
    assert {name for name in grids if baselines[name] not in shared} == {"supervision", "target-norm"}


def test_the_claim_about_visible_supervision_is_compared_with_masked_supervision():
    grid = built_in_grids(quick=True)["supervision"]
    assert grid.baseline == "tokens=masked"
    assert [variant.name for variant in grid.variants] == ["tokens=masked", "tokens=visible", "tokens=both"]


def test_the_quick_grids_come_to_few_runs_a_seed():
    distinct = {what(run) for runs in runs_of(quick=True).values() for run in runs}
    assert len(distinct) == 35
    assert sum(map(len, runs_of(quick=True).values())) == 49


def test_quick_runs_are_those_of_the_built_in_study_and_full_ones_see_224_pixels():
    for runs in runs_of(quick=True).values():
        assert {(run.recipe.epochs, run.recipe.model.image_px) for run in runs} == {(16, 64)}
    for runs in runs_of(quick=False).values():
        assert {(run.recipe.epochs, run.recipe.model.image_px) for run in runs} == {(100, 224)}


@FORMS
def test_full_forms_have_three_seeds_and_quick_ones_four(quick):
    assert {grid.seeds for grid in built_in_grids(quick=quick).values()} == {(0, 1, 2, 3) if quick else (0, 1, 2)}


@FORMS
def test_every_store_that_a_grid_wants_has_a_command(quick):
    grids = built_in_grids(quick=quick)
    for name, runs in runs_of(quick).items():
        for store in {run.store for run in runs}:
            command = grids[name].stores[store].command("studies/mine/study", store, "IMAGES")
            assert command.startswith("caev2 demo --study --out studies/mine" if quick else "caev2 ")
            assert quick or f"study/{store}" in command
