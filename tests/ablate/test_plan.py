"""Plans: which runs grids share, what is left to do, and what it takes."""

import dataclasses

import pytest
import torch

from caev2.ablate import cost as cost_module
from caev2.ablate.cost import cost_of
from caev2.ablate.finding import Judging
from caev2.ablate.outcome import write_outcome
from caev2.ablate.plan import make_plan, state_of
from caev2.ablate.replaced import refuse_other_forms
from caev2.errors import ConfigError, SourceError, StoreMismatch
from caev2.pretrain.foresight.rehearsal import Rehearsal
from caev2.pretrain.identity import read_identity
from caev2.pretrain.run import pretrain
from caev2.store.reader import Store
from tests.ablate.made_up import make_outcome
from tests.ablate.studying import STEPS, grid, plan, run_grids

VIEWS = [{"name": "views", "field": "views", "values": [2, 1]}]


def test_grids_share_the_runs_that_are_the_same(made):
    found = plan(made, grid("one"), grid("two", axis=VIEWS))
    (both, visible), (two, one) = found.by_grid["one"], found.by_grid["two"]
    assert both[1] == two[1], "all views are all views, counted or not"
    assert len({word for _, word in (both, visible, two, one)}) == 3 == len(found.runs)
    assert found.runs[both[1]].names == ("one/tokens=both/seed=0", "two/views=2/seed=0")


def test_a_run_is_called_as_pretraining_calls_it(made, tmp_path):
    found = plan(made, grid())
    run = found.runs[found.by_grid["small"][0][1]]
    pretrain(made / "study" / "views", tmp_path / "run", run.recipe, images=made / "images", stop_after=1)
    assert read_identity(tmp_path / "run").fingerprint() == run.fingerprint
    assert run.steps == STEPS


def test_settings_that_only_change_the_speed_make_no_other_run(made):
    one, other = plan(made, grid()), plan(made, grid(set={"log_steps": 7, "workers": 1}))
    assert one.runs.keys() == other.runs.keys()


def test_seeds_stores_and_live_teachers_make_other_runs(made):
    values = [{"name": "stored"}, {"name": "other", "store": "still"}, {"name": "live", "online": "fresh"}]
    found = plan(made, grid(seeds=[0, 1], axis=[{"name": "where", "value": values}]))
    assert len(found.runs) == 6


def test_a_run_that_several_grids_judge_is_asked_all_they_ask(made):
    found = plan(made, grid("one"), grid("two", evaluations=["linear"]), grid("three", curves=True))
    assert {run.kinds for run in found.runs.values()} == {("knn", "linear")}
    assert all(run.curves for run in found.runs.values())


@pytest.mark.parametrize(("field", "values"), [("workers", [0, 1]), ("views", [2, "none"])])
def test_a_run_is_not_compared_with_itself(made, field, values):
    with pytest.raises(ConfigError, match=r"small/axis=.*/seed=0 and small/axis=.*/seed=0 are the same run"):
        plan(made, grid(axis=[{"name": "axis", "field": field, "values": values}]))


def test_two_grids_of_one_name_are_refused(made):
    with pytest.raises(ConfigError, match="Two grids are called 'small'"):
        plan(made, grid(), grid())


def test_what_a_store_lacks_is_said_of_the_run_before_anything_is_begun(made):
    found = plan(made, grid(axis=[{"name": "views", "field": "views", "values": [1, 8]}]))
    assert list(found.misfits) == ["small/views=8/seed=0"]
    with pytest.raises(StoreMismatch, match=r"small/views=8/seed=0: .* has 2 views of each image"):
        found.refuse_missing()


def test_a_recipe_that_no_run_could_have_is_said_of_the_run(made):
    with pytest.raises(ConfigError, match=r"small/batch=99/seed=0: .* fewer than one batch of 99"):
        plan(made, grid(axis=[{"name": "batch", "field": "batch_size", "values": [99]}]))


def test_a_live_teacher_needs_the_images_of_the_study(made, tmp_path):
    fresh = grid(axis=[{"name": "where", "value": [{"name": "live", "online": "fresh"}]}])
    with pytest.raises(ConfigError, match="give --images"):
        make_plan(made / "study", [fresh])
    key = Store(made / "study" / "views").keys[0]
    for number in range(2):
        place = tmp_path / "other" / f"class-{number}"
        place.mkdir(parents=True)
        (place / "0.png").write_bytes((made / "images" / "train" / "class-0" / "0.png").read_bytes())
    with pytest.raises(SourceError, match="lacks") as problem:
        make_plan(made / "study", [fresh], images=tmp_path / "other")
    assert key.rpartition("/")[2] not in ("",)
    assert "Give the images of the study" in str(problem.value)


def test_a_plan_knows_what_is_done_and_what_the_rest_takes(made, tmp_path):
    judging, small = Judging.by(made / "images"), grid()
    before = plan(made, small)
    states = {word: state_of(run, tmp_path / "out", judging) for word, run in before.runs.items()}
    cost = cost_of(before, states, tmp_path / "out", device="cpu", at_once=1)
    assert (cost.runs, cost.steps, cost.known_from) == (2, 2 * STEPS, "some steps, timed")
    assert not (tmp_path / "out").exists()
    run_grids(made, tmp_path / "out", small)
    wider = plan(made, small, grid("wider", axis=VIEWS))
    states = {word: state_of(run, tmp_path / "out", judging) for word, run in wider.runs.items()}
    cost = cost_of(wider, states, tmp_path / "out", device="cpu", at_once=1)
    assert (cost.runs, cost.steps, cost.known_from) == (1, STEPS, "runs that are done")
    assert cost.hours > 0


def test_runs_whose_store_is_missing_are_counted_beside_the_cost(made, tmp_path):
    stores = [{"name": "store", "field": "store", "values": ["views", "absent", "other"]}]
    found = plan(made, grid("one", axis=stores, seeds=[0, 1]), grid("two", axis=stores))
    assert (len(found.runs), found.without_store) == (2, 4), "those of the second are of the first"
    states = {word: state_of(run, tmp_path, Judging.by(made / "images")) for word, run in found.runs.items()}
    cost = cost_of(found, states, tmp_path, device="cpu", at_once=1)
    assert (cost.runs, cost.steps, cost.without_store) == (2, 2 * STEPS, 4)


def test_steps_that_were_timed_on_one_gpu_are_divided_among_all(made, tmp_path, monkeypatch):
    found, judging = plan(made, grid()), Judging.by(made / "images")
    states = {word: state_of(run, tmp_path, judging) for word, run in found.runs.items()}
    timed = Rehearsal(batch_size=4, seconds=(0.1,))
    monkeypatch.setattr(cost_module, "rehearse", lambda *_, **__: timed)
    hours = [
        cost_of(found, states, tmp_path, device="cpu", at_once=jobs, gpus=gpus).hours
        for jobs, gpus in ((1, 1), (8, 1), (8, 8))
    ]
    assert hours[0] == hours[1] == pytest.approx(8 * hours[2])


@pytest.mark.parametrize("quick", [True, False])
def test_the_other_form_of_a_grid_is_not_written_over(made, tmp_path, quick):
    outcome = make_outcome({"tokens": ("both", "visible")}, {}, grid="small", quick=quick)
    (tmp_path / "small").mkdir()
    write_outcome(outcome, tmp_path / "small")
    same, other = (dataclasses.replace(grid(), quick=one) for one in (quick, not quick))
    refuse_other_forms([same], tmp_path)
    said = "the quick form .* its full form" if quick else "the full form .* its quick form"
    with pytest.raises(ConfigError, match=said):
        refuse_other_forms([other], tmp_path)
    with pytest.raises(ConfigError, match=said):
        run_grids(made, tmp_path, other)
    (tmp_path / "small" / "outcome.json").write_text("{")
    refuse_other_forms([other], tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="its precision is known")
def test_gpus_that_are_elsewhere_need_a_precision(made):
    with pytest.raises(ConfigError, match=r"small/tokens=both/seed=0: .*--set precision=bf16"):
        plan(made, grid(), device="cuda")
    found = plan(made, grid(), device="cuda", overrides={"precision": "bf16"})
    assert {run.recipe.precision for run in found.runs.values()} == {"bf16"}


@pytest.mark.parametrize("seed", [-1, 2**63, 99999999999999999999999])
def test_a_seed_that_no_generator_takes_is_refused(made, seed):
    with pytest.raises(ConfigError, match="at least 0 and below"):
        plan(made, grid(seeds=[seed]))
