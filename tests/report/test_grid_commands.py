"""A grid asked again: as a whole, and each run on the store that it learned from."""

import dataclasses
import shlex
from pathlib import Path

import pytest

from caev2.ablate.built_in import built_in_grids
from caev2.ablate.outcome import read_outcome, write_outcome
from caev2.ablate.running import _is_built_in
from caev2.commands.ablate import _overrides
from caev2.pretrain.recipes import RECIPES
from caev2.recipe import load, override
from caev2.report.reading.studies import read_grid
from caev2.report.reproducing.grids import grid_command, is_built_in, store_commands
from caev2.report.sections.reproduce import commands_of_grid
from tests.report.made_up import identity_of
from tests.report.made_up_grids import make_study
from tests.test_docs import parse


def parsed(command) -> dict:
    return parse(command.line)[1]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"))


def test_a_built_in_grid_is_asked_again_by_its_name(outcome):
    line = grid_command(outcome).line
    assert line == "caev2 ablate STUDY supervision OUT --quick --images IMAGES --seeds 0,1,2"
    parse(line)


@pytest.mark.parametrize(("name", "built_in"), [("supervision", False), ("my own", None), ("my own", False)])
def test_a_grid_of_ones_own_is_asked_again_by_its_file(outcome, name, built_in):
    command = grid_command(dataclasses.replace(outcome, grid=name, built_in=built_in))
    assert parsed(command)["words"] == ("STUDY", f"{name}.toml", "OUT")
    assert f"{name}.toml is the grid’s own file." in command.notes


def test_settings_and_images_of_the_command_are_given_again(outcome):
    overrides = {
        "epochs": 3,
        "optimizer.betas": [0.8, 0.95],
        "optimizer.clip_norm": None,
        "target": "post_norm",
        "loss": {"average": "group_mean"},
    }
    values = parsed(grid_command(dataclasses.replace(outcome, overrides=overrides, judged_apart=True)))
    assert _overrides(values["settings"]) == overrides
    assert str(values["probe_images"]) == "PROBE_IMAGES"
    assert override(RECIPES["demo"], values["settings"]).optimizer.betas == (0.8, 0.95)


def test_an_outcome_remembers_what_was_given_and_older_ones_are_read(outcome, tmp_path):
    given = dataclasses.replace(
        outcome, overrides={"epochs": 3, "mask.kind": "random"}, built_in=False, judged_apart=True
    )
    write_outcome(given, tmp_path)
    assert read_outcome(tmp_path) == given
    content = (tmp_path / "outcome.json").read_text()
    older = content[: content.index(',\n "overrides"')] + "\n}"
    (tmp_path / "outcome.json").write_text(older)
    assert read_outcome(tmp_path) == dataclasses.replace(outcome, targets=())
    assert is_built_in(read_outcome(tmp_path))


def test_a_file_that_is_called_like_a_built_in_grid_is_none(outcome):
    grid = built_in_grids(quick=True)["supervision"]
    assert _is_built_in(dataclasses.replace(grid, seeds=(5,)))
    assert not _is_built_in(dataclasses.replace(grid, recipe="demo"))
    assert not _is_built_in(dataclasses.replace(grid, name="other"))


def test_runs_that_differ_in_their_store_alone_are_trained_on_it_and_probed_again(study):
    outcome = read_outcome(study / "supervision")
    stores = {run.name: f"views-{place}" for place, run in enumerate(outcome.runs)}
    runs = tuple(dataclasses.replace(run, store=stores[run.name]) for run in outcome.runs)
    outcome = dataclasses.replace(outcome, runs=runs, built_in=False, judged_apart=True)
    commands = commands_of_grid(read_grid(study / "supervision"), outcome)
    trained = {one.makes: parsed(one) for one in commands if one.words[0] == "pretrain"}
    assert {name: values["store"] for name, values in trained.items()} == {
        name: f"STUDY/{store}" for name, store in stores.items()
    }
    for run in outcome.runs:
        values = trained[run.name]
        assert values["run"] == Path("OUT/runs") / run.fingerprint
        again = override(load(values["recipe"], RECIPES), values["settings"])
        assert identity_of(again).fingerprint() == run.fingerprint


def test_a_run_of_a_grid_is_probed_again_by_the_results_that_the_table_has(study):
    outcome, grid = read_outcome(study / "supervision"), read_grid(study / "supervision")
    outcome = dataclasses.replace(outcome, judged_apart=True)
    others = {name: dataclasses.replace(score, value=0.123456) for name, score in outcome.runs[0].scores.items()}
    runs = tuple(
        run if place == 4 else dataclasses.replace(run, scores=others) for place, run in enumerate(outcome.runs)
    )
    asked = [one for one in commands_of_grid(grid, outcome) if one.words[0] == "probe"]
    assert len(asked) == sum(bool(run.scores) for run in outcome.runs)
    (probe,) = [
        one for one in commands_of_grid(grid, dataclasses.replace(outcome, runs=runs)) if one.words[0] == "probe"
    ]
    where = [str(word) for word in parsed(probe)["paths"]]
    assert where == [f"OUT/runs/{outcome.runs[4].fingerprint}", "PROBE_IMAGES"]
    assert "digests" in " ".join(probe.notes)


def test_stores_of_a_built_in_grid_are_made_again_with_those_that_they_come_from(outcome):
    codec = dataclasses.replace(outcome, grid="codec", quick=False, built_in=True)
    runs = (dataclasses.replace(outcome.runs[0], store="views-int8"), dataclasses.replace(outcome.runs[1], store=None))
    commands = store_commands(dataclasses.replace(codec, runs=runs), {"views-int8": "4d" * 32})
    lines = [one.line for one in commands]
    assert [line.split()[1:3] for line in lines] == [["extract", "IMAGES"], ["store", "convert"]]
    assert shlex.split(lines[1])[3:] == [
        *("STUDY/views", "STUDY/views-int8", "--codec", "int8", "--targets", "projected", "--any-quality")
    ]
    assert "views-int8 4d4d4d4d4d4d…" in " ".join(commands[1].notes)
    for line in lines:
        parse(line)


def test_stores_of_the_built_in_study_are_one_command_and_those_of_a_file_are_listed_by_it(outcome):
    (one,) = store_commands(outcome, {})
    assert parsed(one)["study"]
    (listed,) = store_commands(dataclasses.replace(outcome, built_in=False), {})
    assert parsed(listed)["dry_run"]
