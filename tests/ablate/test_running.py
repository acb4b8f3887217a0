"""Running grids: what is done is done once, whoever asks and however often it is interrupted."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caev2.ablate.engines.side_by_side import SideBySide
from caev2.ablate.finding import Judging, find_result
from caev2.ablate.running import ablate
from caev2.errors import ConfigError, TeacherError
from caev2.eval.entrants import RunEntry, sha256_of_file
from caev2.eval.result import save_result
from caev2.eval.run import probe
from caev2.extract.teachers import recorded
from caev2.pretrain.identity import read_identity
from caev2.pretrain.telling.log import read_log
from caev2.progress import Silent
from caev2.store.reader import Store
from tests.ablate.studying import STEPS, Here, grid, outcome_bytes, outcome_of, plan, results_of, run_grids, runs_of

ROOT = Path(__file__).parents[2]
VIEWS = [{"name": "views", "field": "views", "values": [2, 1]}]
DIVERGING = [
    {"name": "lr", "value": [{"name": "low"}, {"name": "wild", "set": {"optimizer": {"lr": 1e30, "clip_norm": "none"}}}]}
]  # fmt: skip


class Said(Silent):
    """Remembers what was said."""

    def __init__(self):
        self.lines, self.steps, self.warnings = [], 0, []

    def say(self, message):
        self.lines.append(message)

    def advance(self, items, **figures):
        self.steps += items

    def warn(self, message):
        self.warnings.append(message)


@pytest.fixture(scope="module")
def done(made, tmp_path_factory) -> Path:
    """What a small grid of two seeds left, run as the command runs it; not to be written to."""
    out = tmp_path_factory.mktemp("ablations") / "out"
    run_grids(made, out, grid(seeds=[0, 1]), engine=SideBySide())
    return out


@pytest.fixture
def out(done, tmp_path) -> Path:
    return shutil.copytree(done, tmp_path / "out")


def test_every_run_of_a_grid_is_trained_to_its_end_and_judged(done):
    found = outcome_of(done)
    assert [run.name for run in found.runs] == [
        f"small/tokens={tokens}/seed={seed}" for tokens in ("both", "visible") for seed in (0, 1)
    ]
    assert {run.fingerprint: list(range(STEPS)) for run in found.runs} == runs_of(done)
    for run in found.runs:
        assert run.failure is None
        assert run.store == "views"
        assert read_identity(done / "runs" / run.fingerprint).fingerprint() == run.fingerprint
        assert len(list((done / "runs" / run.fingerprint / "checkpoints").glob("*.safetensors"))) == 1


def test_numbers_are_those_of_the_probe_and_of_the_last_epoch_of_the_log(made, done):
    for run in outcome_of(done).runs:
        folder = done / "runs" / run.fingerprint
        judged = probe([RunEntry.find(folder).student()], made / "images", kinds=("knn",)).subjects[0].accuracy["knn"]
        knn = run.scores["knn"]
        assert (knn.value, knn.low, knn.high) == (judged.value, judged.low, judged.high)
        last = [record for record in read_log(folder) if record["epoch"] == 1]
        for name in ("loss", "cosine_class", "cosine_visible", "cosine_masked"):
            assert run.scores[name].value == pytest.approx(sum(one[name] for one in last) / len(last))
        assert run.scores["loss"].low is None


def test_the_outcome_says_what_the_grid_is(made, done):
    found = outcome_of(done)
    assert (found.grid, found.baseline, found.metrics, found.seeds) == ("small", "tokens=both", ("knn",), (0, 1))
    assert [(axis.name, axis.values, axis.baseline) for axis in found.axes] == [("tokens", ("both", "visible"), "both")]
    assert found.val_images == 6
    assert found.of("tokens=visible")[1].recipe["loss"]["masked_weight"] == 0
    assert found.of("tokens=visible")[1].recipe["seed"] == 1
    manifest = Store(made / "study" / "views").manifest
    spec = manifest.spec.targets["projected"]
    (target,) = found.targets
    assert target.digest == manifest.root_digest
    assert (target.store, target.target, target.codec, target.images, target.views, target.row_bytes) == (
        "views", "projected", spec.codec, 12, 2, spec.row_bytes,
    )  # fmt: skip


def test_the_same_command_again_computes_nothing_and_writes_the_same(made, out):
    before = outcome_bytes(out)
    logs = {path: path.stat().st_mtime_ns for path in out.rglob("log.jsonl")}
    assert run_grids(made, out, grid(seeds=[0, 1])).computed == 0
    assert outcome_bytes(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("log.jsonl")} == logs


def test_what_was_found_of_weights_that_are_gone_is_no_answer(made, out):
    run = next(path for path in sorted((out / "runs").iterdir()))
    (kept,) = (run / "results").glob("*.json")
    shutil.rmtree(run / "checkpoints")
    for path in (kept, run / "result.json"):
        content = json.loads(path.read_bytes())
        content["run"]["checkpoint_sha256"] = "0" * 64
        path.write_text(json.dumps(content))
    assert run_grids(made, out, grid(seeds=[0, 1])).computed == 1
    (checkpoint,) = (run / "checkpoints").glob("*.safetensors")
    for path in (kept, run / "result.json"):
        assert json.loads(path.read_bytes())["run"]["checkpoint_sha256"] == sha256_of_file(checkpoint)


@pytest.mark.slow
def test_the_tenth_run_of_a_process_is_compiled_like_the_first(made, tmp_path):
    command = [sys.executable, "-m", "tests.ablate.compiled_runs", str(made), str(tmp_path)]
    counts = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    assert len(counts) == 10
    assert counts[0] > 0
    assert set(counts) == {counts[0]}


def test_a_table_of_other_runs_is_not_replaced_in_silence(made, out):
    told = Said()
    run_grids(made, out, grid(seeds=[0, 1]), progress=told)
    assert told.warnings == []
    other = plan(made, grid(seeds=[0]), overrides={"batch_size": 3})
    ablate(other, out, Judging.by(made / "images"), Here(), images=made / "images", progress=told)
    (warning,) = told.warnings
    assert "with nothing set for all runs, and not batch_size=3; this command writes over it" in warning
    assert outcome_of(out).overrides == {"batch_size": 3}


def test_other_images_judge_where_none_were_extracted_from(made, tmp_path):
    kept = plan(made, grid())
    assert kept.study["views"].manifest.spec.crops is None
    judged = ablate(kept, tmp_path, Judging.by(made / "images"), Here(), images=made / "images").outcomes[0]
    assert (judged.judged_apart, judged.classes, judged.recipe) == (False, 2, "demo")
    link = tmp_path / "link"
    link.symlink_to(made / "images")
    assert ablate(kept, tmp_path, Judging.by(link), Here(), images=made / "images").outcomes[0].judged_apart


def test_a_grid_that_overlaps_trains_only_what_is_new(made, out):
    before = runs_of(out)
    told = Said()
    result = run_grids(made, out, grid("wider", seeds=[0, 1], axis=VIEWS), progress=told)
    assert (result.runs, result.computed) == (4, 2)
    assert told.steps == 2 * STEPS
    assert set(before) < set(runs_of(out))
    assert [run.fingerprint for run in outcome_of(out, "wider").of("views=2")] == [
        run.fingerprint for run in outcome_of(out).of("tokens=both")
    ]


def test_another_kind_of_probe_is_asked_without_training(made, out):
    before = runs_of(out)
    asking = grid("asking", seeds=[0, 1], evaluations=["linear"])
    result = run_grids(made, out, asking, progress=(told := Said()))
    assert (result.computed, told.steps) == (4, 0)
    assert runs_of(out) == before
    for run in outcome_of(out, "asking").runs:
        assert {"linear"} <= set(run.scores)
        assert "knn" not in run.scores
        kinds = [sorted(one["subjects"][0]["accuracy"]) for one in results_of(out / "runs" / run.fingerprint)]
        assert sorted(kinds) == [["knn"], ["knn", "linear"]], "the latest result says all there is"
    assert run_grids(made, out, asking, grid(seeds=[0, 1])).computed == 0


def test_other_images_are_another_question(made, out, tmp_path):
    shutil.copytree(made / "images", tmp_path / "images")
    (tmp_path / "images" / "val" / "class-0" / "4.png").unlink()
    planned = plan(made, grid(seeds=[0, 1]))
    judging = Judging.by(tmp_path / "images")
    told = Said()
    result = ablate(planned, out, judging, Here(), images=made / "images", progress=told)
    assert (result.computed, told.steps) == (4, 0)
    assert outcome_of(out).val_images == 5


def test_curves_are_in_the_log(made, tmp_path):
    run_grids(made, tmp_path, grid(curves=True, set={"knn_epochs": 1}))
    for run in (tmp_path / "runs").iterdir():
        assert [record["epoch"] for record in read_log(run) if "knn_percent" in record] == [0, 1]


def test_a_live_teacher_takes_the_place_of_a_store(made, tmp_path):
    values = [{"name": "stored"}, {"name": "fresh", "online": "fresh"}]
    run_grids(made, tmp_path, grid(axis=[{"name": "targets", "value": values}]))
    stored, fresh = outcome_of(tmp_path).runs
    assert (stored.store, fresh.store, fresh.failure) == ("views", None, None)
    assert read_identity(tmp_path / "runs" / fresh.fingerprint).online == "fresh"
    # two epochs see the two views of the store: the same crops, whose latents are not rounded
    assert fresh.scores["loss"].value == pytest.approx(stored.scores["loss"].value, rel=1e-3)


def test_a_run_that_diverges_is_told_and_stops_no_other(made, tmp_path):
    told = Said()
    result = run_grids(made, tmp_path, grid(axis=DIVERGING, set={"epochs": 8}), engine=SideBySide(), progress=told)
    low, wild = outcome_of(tmp_path).runs
    assert low.failure is None
    assert low.scores
    assert "not finite" in wild.failure
    assert not wild.scores
    assert result.failures == {wild.name: wild.failure}
    assert any(line.startswith("[2/2] small/lr=wild/seed=0 failed: ") for line in told.lines), told.lines
    assert result.computed == 1
    again = run_grids(
        made, tmp_path, grid(axis=DIVERGING, set={"epochs": 8}), engine=SideBySide(), progress=(told := Said())
    )
    assert (again.computed, list(again.failures)) == (0, [wild.name])
    assert any(line.startswith("[1/1] small/lr=wild/seed=0 failed: ") for line in told.lines), "it is tried again"


def test_images_that_a_store_needs_are_asked_for_before_anything_is_written(made, tmp_path):
    with pytest.raises(ConfigError, match="keeps no crops, so small/tokens=both/seed=0 needs the images"):
        ablate(plan(made, grid()), tmp_path / "out", Judging.by(made / "images"), Here())
    assert not (tmp_path / "out").exists()


def test_curves_that_were_not_asked_on_the_way_are_told_as_missing(made, done, out):
    told = Said()
    run_grids(made, out, grid("curved", seeds=[0, 1], curves=True, axis=VIEWS), progress=told)
    (warning,) = told.warnings
    both = [run.fingerprint for run in outcome_of(done).of("tokens=both")]
    assert "2 runs, such as curved/views=2/seed=0" in warning
    assert f"the folders {', '.join(both)}, and run" in warning
    for word in both:
        shutil.rmtree(out / "runs" / word)
    run_grids(made, out, grid("curved", seeds=[0, 1], curves=True, axis=VIEWS), progress=(told := Said()))
    assert told.warnings == []


FRESH = [{"name": "targets", "value": [{"name": "stored"}, {"name": "fresh", "online": "fresh"}]}]


def test_a_live_teacher_that_is_not_there_is_refused_before_the_first_run(made, tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "TEACHERS", ())  # as if it had been extracted from a file
    with pytest.raises(TeacherError, match=r"The live teacher of .*views is not found: .*Say where .* --teacher"):
        run_grids(made, tmp_path / "out", grid(axis=FRESH))
    assert not (tmp_path / "out").exists()
    run_grids(made, tmp_path / "out", grid(axis=FRESH), teacher="demo")
    assert [run.failure for run in outcome_of(tmp_path / "out").runs] == [None, None]
    run_grids(made, tmp_path / "out", grid(axis=FRESH))  # of what is trained nothing is needed


class Stopping(Here):
    """Stops before the second run, as a machine does."""

    def work_off(self, works, told):
        super().work_off(works[:1], told)
        raise KeyboardInterrupt


def test_an_interrupted_command_writes_what_there_is(made, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_grids(made, tmp_path, grid(), engine=Stopping())
    first, second = outcome_of(tmp_path).runs
    assert first.scores
    assert second.failure.startswith("not done yet")
    run_grids(made, tmp_path, grid())
    assert [run.failure for run in outcome_of(tmp_path).runs] == [None, None]


def test_processes_side_by_side_come_to_the_same_bytes(made, done, tmp_path):
    told = Said()
    run_grids(made, tmp_path, grid(seeds=[0, 1]), engine=SideBySide(devices=("cpu", "cpu")), progress=told)
    assert outcome_bytes(tmp_path) == outcome_bytes(done)
    assert told.steps == 4 * STEPS
    assert sorted(line.partition(" ")[0] for line in told.lines) == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]


SMALL = """
recipe = "demo"
seeds = [0, 1]
evaluations = ["knn"]
[set]
epochs = 2
batch_size = 4
checkpoint_steps = 1
log_steps = 1
model = { depth = 1, width = 24, heads = 2, regressor_width = 24, regressor_heads = 2 }
[[axis]]
name = "tokens"
[[axis.value]]
name = "both"
[[axis.value]]
name = "visible"
set = { loss = { masked_weight = 0 } }
"""
"""As `grid(seeds=[0, 1])`."""


def start(made: Path, out: Path, *more: str) -> subprocess.Popen:
    """The command itself, with its way of hearing signals."""
    file = out.parent / "small.toml"
    file.write_text(SMALL)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = ["ablate", made / "study", file, out, "--images", made / "images", "--device", "cpu", "--quiet", *more]
    return subprocess.Popen([sys.executable, "-m", "caev2.cli", *words], env=environment, cwd=ROOT)


def steps_done(out: Path) -> int:
    return sum(log.read_bytes().count(b"\n") for log in out.glob("runs/*/log.jsonl"))


def wait_until(is_so, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def all_judged(out: Path) -> bool:
    return len(list(out.glob("runs/*/result.json"))) == 4


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_at_random_moments_a_grid_ends_in_the_same_bytes(made, done, tmp_path, jobs):
    out, chance, hit = tmp_path / "out", random.Random(jobs), []
    for kill in range(5):
        with start(made, out, "--jobs", str(jobs)) as command:
            wanted = steps_done(out) + chance.randrange(1, 6)
            wait_until(lambda: steps_done(out) >= wanted or all_judged(out) or command.poll() is not None)  # noqa: B023
            time.sleep(chance.uniform(0, 0.3))
            command.send_signal(signal.SIGKILL if kill % 2 == 0 else signal.SIGTERM)
        hit += [] if all_judged(out) else [command.returncode]
    assert -signal.SIGKILL in hit
    assert 128 + signal.SIGTERM in hit, "both found work that was not done"
    run_grids(made, out, grid(seeds=[0, 1]), engine=SideBySide())
    assert outcome_bytes(out) == outcome_bytes(done)
    assert runs_of(out) == runs_of(done)


@pytest.mark.slow
def test_two_commands_at_once_share_the_work(made, done, tmp_path):
    out = tmp_path / "out"
    with start(made, out) as one, start(made, out) as other:
        assert (one.wait(), other.wait()) == (0, 0)
    assert all_judged(out)
    assert outcome_bytes(out) == outcome_bytes(done)
    assert runs_of(out) == runs_of(done)


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_one_run_until_the_next_time(made, done, tmp_path):
    out = tmp_path / "out"
    with start(made, out) as command:
        wait_until(lambda: steps_done(out) >= 2)
        (worker,) = children_of(command.pid)
        os.kill(worker, signal.SIGKILL)
        assert command.wait() == 1, "a run failed"
    failed = [run for run in outcome_of(out).runs if run.failure]
    assert len(failed) == 1
    assert "ended from outside (exit status -9)" in failed[0].failure
    run_grids(made, out, grid(seeds=[0, 1]))
    assert outcome_bytes(out) == outcome_bytes(done)


def children_of(parent: int) -> list[int]:
    """Processes that a command has started to work for it, and not the tracker of Python's shared memory."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent and b"spawn_main" in (path / "cmdline").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue
    return found


def test_a_damaged_result_is_asked_again(made, out):
    run = next((out / "runs").iterdir())
    for path in (run / "results").glob("*.json"):
        path.write_bytes(path.read_bytes()[:40])
    before = outcome_bytes(out)
    judging = Judging.by(made / "images")
    assert find_result(run, judging, ("knn",), STEPS) is None
    assert run_grids(made, out, grid(seeds=[0, 1])).computed == 1
    assert outcome_bytes(out) == before


def test_a_result_of_otherwise_resized_images_does_not_answer(out, made):
    run = next(iter(sorted((out / "runs").iterdir())))
    judging, entry = Judging.by(made / "images"), RunEntry.find(run)
    shutil.rmtree(run / "results")
    for resize_px in (90, None):
        found = probe(
            [entry.student()], made / "images", kinds=["knn"], resize_px=resize_px, orientation=entry.orientation,
            seed=0, run=entry.facts(), progress=Silent(),
        )  # fmt: skip
        save_result(found, run)
        assert (find_result(run, judging, ("knn",), STEPS) is None) == (resize_px == 90)


def test_a_run_that_would_become_another_than_planned_is_refused_and_the_others_are_done(made, out):
    """As where the machine that plans has no GPU, and the one that trains computes in another precision."""
    small = plan(made, grid(seeds=[7]))
    first, second = small.runs.values()
    wrong = dataclasses.replace(first, fingerprint="0" * 32)
    mixed = dataclasses.replace(
        small,
        runs={wrong.fingerprint: wrong, second.fingerprint: second},
        by_grid={
            "small": tuple(
                (run, wrong.fingerprint if word == first.fingerprint else word) for run, word in small.by_grid["small"]
            )
        },
    )
    said = Said()
    engine = SideBySide(devices=("cpu",), threads=1)
    result = ablate(mixed, out, Judging.by(made / "images"), engine, images=made / "images", progress=said)
    assert list(result.failures) == [wrong.names[0]]
    assert (
        f"was planned as run {wrong.fingerprint} and would become {first.fingerprint}"
        in result.failures[wrong.names[0]]
    )
    assert [run.failure is None for run in outcome_of(out).runs] == [False, True]
