"""Engines: an error of one run is that run's, those that are asked to leave save first, cores are dealt out."""

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from caev2.ablate.cost import cost_of
from caev2.ablate.engines import cluster as engine_module
from caev2.ablate.engines.cluster import RayTasks, steps_logged
from caev2.ablate.engines.cores import keep_to, own_cores, share_of
from caev2.ablate.engines.side_by_side import SideBySide, _Crew, _Seat, _seats
from caev2.ablate.finding import Judging
from caev2.ablate.one_run import Work
from caev2.ablate.plan import state_of
from caev2.ablate.running import ablate
from caev2.cluster import Surroundings, connect, device_of_tasks, surroundings
from caev2.errors import ConfigError, MachineDiffers
from caev2.pretrain.supply.loading import cores
from caev2.pretrain.telling.log import last_step
from tests.ablate.studying import STEPS, Here, grid, outcome_bytes, plan, run_grids
from tests.ablate.test_running import DIVERGING, ROOT, Said, wait_until

RAY = (
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
)
ENGINES = [pytest.param(SideBySide(), id="side by side"), pytest.param(RayTasks(), id="Ray", marks=RAY)]


class Told:
    """Remembers what became of each run."""

    def __init__(self):
        self.ends, self.steps, self.warnings = {}, 0, []

    def trained(self, work, steps):
        self.steps += steps

    def finished(self, work):
        self.ends[work.planned.names[0]] = None

    def failed(self, work, why):
        self.ends[work.planned.names[0]] = why

    def warn(self, message):
        self.warnings.append(message)


class Keeping(Here):
    """Does nothing but remember what there is to do."""

    def work_off(self, works, told):
        self.works = list(works)


def works_of(made: Path, out: Path, *grids) -> list[Work]:
    keeping = Keeping()
    ablate(plan(made, *grids), out, Judging.by(made / "images"), keeping, images=made / "images")
    return keeping.works


@pytest.fixture(scope="module", autouse=True)
def _no_cluster_left():
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


@pytest.mark.parametrize("engine", ENGINES)
def test_an_error_that_nobody_expected_is_that_of_its_run_and_stops_no_other(made, tmp_path, engine):
    works = works_of(made, tmp_path, grid(seeds=[0, 1]))
    object.__setattr__(works[1], "judging", None)  # a bug: it is trained, and cannot be judged
    engine.work_off(works, told := Told())
    assert [name for name, why in told.ends.items() if why] == [works[1].planned.names[0]]
    assert len(told.ends) == 4
    assert "ended with an error" in told.ends[works[1].planned.names[0]]
    assert told.steps >= 3 * STEPS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_cluster_that_is_started_here_comes_to_the_same_bytes(made, tmp_path):
    run_grids(made, tmp_path / "here", grid(seeds=[0, 1]))
    run_grids(made, tmp_path / "there", grid(seeds=[0, 1]), engine=RayTasks(), progress=(told := Said()))
    assert outcome_bytes(tmp_path / "there") == outcome_bytes(tmp_path / "here")
    assert told.steps == 4 * STEPS
    failing = grid(axis=DIVERGING, set={"epochs": 8})
    result = run_grids(made, tmp_path / "failing", failing, engine=RayTasks())
    assert list(result.failures) == ["small/lr=wild/seed=0"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_machine_with_other_versions_ends_the_command_and_fails_no_run(made, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    here = surroundings()
    others = Surroundings(here.folder, {**here.versions, "timm": "0.0.1"})
    monkeypatch.setattr(engine_module, "surroundings", lambda: others)
    works, told = works_of(made, tmp_path, grid()), Told()
    with pytest.raises(MachineDiffers, match=r"has timm \S+, the command's has 0\.0\.1"):
        RayTasks().work_off(works, told)
    assert told.ends == {}


def test_a_cluster_that_cannot_be_joined_is_said_and_none_is_started(monkeypatch):
    ray = pytest.importorskip("ray")
    tried = []

    def refuse(**how):
        tried.append(how["address"])
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.0.0\n    Python: 3.9.1")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(
        ConfigError, match=r"cannot be joined: Version mismatch: .* Ray: 2\.0\.0 Python: 3\.9\.1 Install"
    ):
        connect("auto", or_start=True)
    assert tried == ["auto"]


LEAVING = """
import sys
from pathlib import Path
import click
from caev2.ablate.cost import cost_of
from caev2.ablate.engines import cluster as engine_module
from caev2.ablate.engines.cluster import RayTasks
from caev2.commands.invocation import Commands
from tests.ablate.studying import grid, run_grids

@click.group(cls=Commands)
def main():
    pass

@main.command()
def run():
    long = {"epochs": 3000, "checkpoint_steps": "none", "checkpoint_epochs": 3000}
    made, out = map(Path, sys.argv[2:])
    run_grids(made, out, grid(set=long), engine=RayTasks())

main(sys.argv[1:2], prog_name="caev2")
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tasks_that_are_asked_to_leave_save_what_they_trained(made, tmp_path, number):
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", LEAVING, "run", made, out]
    heard = functools.partial(signal.signal, number, signal.SIG_DFL)  # also where the tests themselves ignore it
    with subprocess.Popen(words, env=environment, cwd=ROOT, preexec_fn=heard) as command:
        wait_until(lambda: any(log.stat().st_size > 200 for log in out.glob("runs/*/log.jsonl")))
        command.send_signal(number)
        assert command.wait() == 128 + number
    assert list(out.glob("runs/*/checkpoints/*.safetensors")), "none was due"


def test_a_worker_that_is_asked_before_it_can_hear_leaves_all_the_same():
    crew = _Crew(1)
    connection = crew.hire(_Seat("cpu", frozenset()))
    worker = crew.workers[connection]
    worker.work = object()  # type: ignore[assignment]  # as if it were at work
    crew.interrupt()
    assert worker.process.exitcode == -signal.SIGTERM, "it was not waited for in vain, and killed"
    crew.dismiss()


@given(st.sets(st.integers(0, 500), min_size=1, max_size=64), st.integers(1, 16))
def test_every_core_is_dealt_out_once_if_there_are_enough(all_cores, processes):
    shares = [share_of(all_cores, place, processes) for place in range(processes)]
    assert frozenset().union(*shares) == all_cores if len(all_cores) >= processes else all(map(len, shares))
    if len(all_cores) >= processes:
        assert sum(map(len, shares)) == len(all_cores)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(share <= all_cores for share in shares)


def _count_cores(some, answers):
    keep_to(some)
    answers.put(cores())


def test_a_process_that_keeps_to_some_cores_counts_no_others():
    context = multiprocessing.get_context("spawn")
    answers, some = context.SimpleQueue(), sorted(own_cores())[:1]
    process = context.Process(target=_count_cores, args=(some, answers))
    process.start()
    assert answers.get() == len(some)
    process.join()


def test_gpus_share_the_cores_and_workers_on_a_cpu_are_free_to_move():
    several = _seats(("cuda:0", "cuda:1"))
    assert several[0].cores | several[1].cores == own_cores()
    assert _seats(("cuda:0",))[0].cores == own_cores()
    assert [seat.cores for seat in _seats(("cpu", "cpu"))] == [frozenset(), frozenset()]


def test_how_far_a_run_is_can_be_read_while_its_log_is_written(made, tmp_path):
    work = works_of(made, tmp_path, grid())[0]
    assert steps_logged(work) == 0
    work.folder.mkdir(parents=True)
    line = '{"step": %d, "loss": 1.0}\n'
    (work.folder / "log.jsonl").write_text("".join(line % step for step in range(2000)) + '{"step": 20')
    assert last_step(work.folder) == 1999
    assert steps_logged(work) == STEPS, "no more than there are"
    (work.folder / "log.jsonl").write_text(line % 2)
    assert steps_logged(work) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="steps are timed on the GPU of this machine")
def test_hours_on_gpus_of_other_machines_are_not_known(made, tmp_path):
    planned = plan(made, grid(), device="cuda", overrides={"precision": "bf16"})
    states = {word: state_of(run, tmp_path, Judging.by(made / "images")) for word, run in planned.runs.items()}
    cost = cost_of(planned, states, tmp_path, device="cuda", at_once=1)
    assert (cost.runs, cost.hours, cost.known_from) == (2, None, "nothing")


def test_a_cluster_picks_the_gpu_itself():
    assert device_of_tasks("cuda", "auto") == "cuda"
    assert RayTasks(device=device_of_tasks("cuda", "auto")).needs["num_gpus"] == 1
    with pytest.raises(ConfigError, match="--device cuda:0 names a GPU of one machine"):
        device_of_tasks("cuda:0", "auto")
    with pytest.raises(ConfigError, match="cannot be 'gpu'"):
        device_of_tasks("gpu", "auto")


def test_an_address_where_nobody_answers_is_refused_at_once():
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match=r"There is no Ray cluster at '127.0.0.1:1'"):
        connect("127.0.0.1:1", or_start=True)
