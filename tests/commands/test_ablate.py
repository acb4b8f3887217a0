"""`caev2 ablate`: what it prints, writes, refuses, and how it is left."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caev2.ablate.outcome import read_outcome
from tests.commands.invoking import caev2, files_of, refusal

ROOT = Path(__file__).parents[2]
GRID = """
title = "Small"
recipe = "demo"
seeds = [0]
evaluations = ["knn"]
[set]
epochs = 2
batch_size = 4
checkpoint_steps = 1
model = { depth = 1, width = 24, heads = 2, regressor_width = 24, regressor_heads = 2 }
[[axis]]
name = "views"
field = "views"
values = [2, 1]
"""
WILD = """
[[axis]]
name = "lr"
[[axis.value]]
name = "low"
[[axis.value]]
name = "wild"
set = { optimizer.lr = 1e30, optimizer.clip_norm = "none", epochs = 8, log_steps = 1 }
"""


@pytest.fixture(scope="module")
def study(made, tmp_path_factory) -> Path:
    """A study of one store, and two grid files; not to be written to."""
    folder = tmp_path_factory.mktemp("ablate")
    shutil.copytree(made / "store", folder / "study" / "views")
    (folder / "small.toml").write_text(GRID)
    (folder / "wild.toml").write_text(GRID.partition("[[axis]]")[0] + WILD)
    return folder


def words(study: Path, grid: str, out: Path, *more: object) -> tuple[object, ...]:
    return "ablate", study / "study", study / grid, out, "--device", "cpu", *more


def test_the_list_says_of_every_grid_what_it_tests_and_how_many_runs_it_has():
    listed = caev2("ablate", "--list")
    assert listed.exit_code == 0
    assert "supervision\n  title   Which tokens are supervised\n  claim   " in listed.stdout
    assert "runs    3 variants x 3 seeds = 9" in listed.stdout
    facts = json.loads(caev2("ablate", "--list", "--quick", "--json").stdout)
    assert facts["views"]["varies"] == "views (1, 2, 4, 8, 16, fresh)"
    assert "2211.09799" in facts["supervision"]["source"]


def test_a_dry_run_tells_runs_and_cost_and_writes_nothing(study, images, tmp_path):
    before = files_of(study)
    done = caev2(*words(study, "small.toml", tmp_path / "out", "--images", images, "--dry-run"))
    assert done.exit_code == 0, done.output
    assert "small: Small\n  small/views=2/seed=0  views  views=2  to do\n" in done.stdout
    assert "2 different runs, 2 of them to do: 8 steps, about " in done.stdout
    assert files_of(study) == before
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_names_missing_stores_with_their_commands(study, images, tmp_path):
    out = tmp_path / "out"
    done = caev2("ablate", study / "study", "codec", out, "--quick", "--images", images, "--dry-run", "--set", "batch_size=4")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (
        f"Missing: views-int8, views-lloyd4, views-klt, views-pq. Make with: caev2 demo --study --out {study}"
        in done.stdout
    )
    assert "codec/codec=pq/seed=1  views-pq  as the recipe  store missing" in done.stdout
    said = refusal("ablate", study / "study", "codec", out, "--quick", "--images", images, "--set", "batch_size=4")
    assert "lacks the stores views-int8, views-lloyd4, views-klt, views-pq. Make them: `caev2 demo --study" in said
    assert not out.exists()


def test_a_dry_run_for_machines_has_everything(study, tmp_path):
    said = json.loads(caev2(*words(study, "small.toml", tmp_path / "out", "--dry-run", "--json")).stdout)
    assert [line["name"] for line in said["grids"]["small"]] == ["small/views=2/seed=0", "small/views=1/seed=0"]
    assert (said["missing"], said["misfits"], said["cost"]["steps"]) == ({}, {}, 8)


def test_runs_are_done_and_told_and_failures_end_with_status_one(study, images, tmp_path):
    out = tmp_path / "out"
    command = ("ablate", study / "study", study / "small.toml", study / "wild.toml", out, "--device", "cpu")
    done = caev2(*command, "--images", images)
    assert done.exit_code == 1, done.output
    assert "Failed: wild/lr=wild/seed=0: " in done.stdout
    assert "3 runs, of which 2 were done now and 1 failed" in done.stdout
    assert "[1/3] small/views=2/seed=0: knn " in done.stderr
    assert [run.failure is None for run in read_outcome(out / "wild").runs] == [True, False]
    assert read_outcome(out / "small").runs[0].fingerprint == read_outcome(out / "wild").runs[0].fingerprint
    again = caev2(*words(study, "small.toml", out, "--images", images, "--json", "--quiet"))
    said = json.loads(again.stdout)
    assert (again.exit_code, said["runs"], said["computed"], said["failures"]) == (0, 2, 0, {})
    dry = caev2(*words(study, "small.toml", out, "--images", images, "--dry-run"))
    assert "views=1/seed=0  views  views=1  done" in dry.stdout
    assert "2 different runs, 0 of them to do: 0 steps" in dry.stdout


def test_the_page_has_the_grids_of_earlier_commands_too_but_for_damaged_ones(study, images, tmp_path):
    out = tmp_path / "out"
    (study / "second.toml").write_text(GRID.replace('"Small"', '"Second"'))
    for grid in ("small.toml", "second.toml"):
        done = caev2(*words(study, grid, out, "--images", images, "--quiet"))
        assert done.exit_code == 0, done.output
    page = (out / "ablations.md").read_text()
    assert page.index("## Second") < page.index("## Small")
    assert "Different runs: 2, of which none failed" in page
    (out / "small" / "outcome.json").write_text("{")
    done = caev2(*words(study, "second.toml", out, "--images", images))
    assert (done.exit_code, "## Small" in (out / "ablations.md").read_text()) == (0, False)
    assert "small/outcome.json is not what `caev2 ablate` writes" in done.stderr


def test_seeds_and_settings_of_the_command_take_the_place_of_the_grids(study, tmp_path):
    more = ("--seeds", "4,5", "--set", "epochs=1", "--dry-run", "--json")
    said = json.loads(caev2(*words(study, "small.toml", tmp_path / "out", *more)).stdout)
    assert [line["name"] for line in said["grids"]["small"]][:2] == ["small/views=2/seed=4", "small/views=2/seed=5"]
    assert said["cost"]["steps"] == 8


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seeds", "0,x"], "--seeds is '0,x'"),
        (["--seeds", "1,1"], "each once"),
        (["--set", "views=2"], "axis 'views' of grid small varies views"),
        (["--set", "epochs"], "has no value"),
        (["--gpus", "99"], "--gpus 99 was asked for"),
        (["--gpus", "1", "--jobs", "2"], "Leave --jobs"),
        ([], "Nobody judges the runs"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(study, tmp_path, more, said):
    assert said in refusal("ablate", study / "study", study / "small.toml", tmp_path / "out", *more)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["views", "all", "mine.toml"])
def test_a_grid_in_the_place_of_the_folder_is_noticed(study, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    assert f"'{out}' is a grid. Add a folder" in refusal("ablate", study / "study", study / "small.toml", out)
    assert list(tmp_path.iterdir()) == []


def test_a_grid_that_is_not_built_in_is_refused_with_the_nearest(study, tmp_path):
    assert "no grid called 'supervison'. Did you mean 'supervision'?" in refusal(
        "ablate", study / "study", "supervison", tmp_path
    )
    assert "Give STUDY, one GRID or more, and OUT" in refusal("ablate", study / "study", "views")


def test_what_is_named_twice_is_one_grid(study, tmp_path):
    named = ("ablate", tmp_path / "none", "codec", "all", "codec", tmp_path / "out", "--dry-run", "--json", "--quick")
    grids = list(json.loads(caev2(*named).stdout)["grids"])
    assert (grids[0], len(grids)) == ("codec", len(set(grids)))
    twice = words(study, "small.toml", tmp_path / "out", "--dry-run", "--json")
    assert list(json.loads(caev2(*twice[:3], *twice[2:]).stdout)["grids"]) == ["small"]
    (tmp_path / "small.toml").write_text(GRID)
    said = refusal("ablate", study / "study", study / "small.toml", tmp_path / "small.toml", tmp_path / "out")
    assert "Two grids are called 'small'" in said
    (tmp_path / "codec.toml").write_text(GRID)
    assert "is called like a built-in grid" in refusal(
        "ablate", study / "study", tmp_path / "codec.toml", tmp_path / "out"
    )


def test_a_dry_run_of_a_study_that_is_yet_to_be_made_has_the_commands(images, tmp_path):
    study = tmp_path / "my study"
    done = caev2("ablate", study, "supervision", "codec", tmp_path / "out", "--dry-run", "--images", images, "--device", "cpu")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert f"Missing: views. Make with: caev2 extract {images} '{study}/views' --recipe base-300e " in done.stdout
    assert f"convert '{study}/views' '{study}/views-pq' --codec pq --targets projected --any-quality\n" in done.stdout
    assert f"asked for: mkdir -p '{study}' && ln -s /path/to/store '{study}/views'\n" in done.stdout
    assert (
        "0 different runs, 0 of them to do: 0 steps; beside them at most 21 runs whose store is missing" in done.stdout
    )
    assert list(tmp_path.iterdir()) == []
    quick = caev2("ablate", study, "codec", tmp_path / "out", "--dry-run", "--quick")
    assert "ln -s" not in quick.stdout


@pytest.mark.slow
def test_asked_to_leave_it_saves_and_says_so_and_the_same_command_goes_on(study, images, tmp_path):
    out = tmp_path / "out"
    line = [str(word) for word in words(study, "small.toml", out, "--images", images, "--set", "epochs=300", "--set", "checkpoint_epochs=300")]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = subprocess.Popen(
        [sys.executable, "-m", "caev2.cli", *line], env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not any(log.stat().st_size > 200 for log in out.glob("runs/*/log.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    command.send_signal(signal.SIGTERM)
    _, said = command.communicate(timeout=60)
    assert command.returncode == 143, said
    assert "The same command goes on" in said or "the same command goes on" in said
    assert list(out.glob("runs/*/checkpoints/*.safetensors")), "what was trained is saved"
    assert all(run.failure.startswith("not done yet") for run in read_outcome(out / "small").runs)
