"""The engine for a Ray cluster: a task for each run, which Ray starts wherever there is room.

All machines have to see study, images and OUT under the same paths. A task that is lost with its machine is started
again a few times, and goes on from its run's last checkpoint.
"""

import functools
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from caev2.ablate.engines.cores import keep_to, own_cores, share_of
from caev2.ablate.engines.engine import LEAVE_S, WAIT_S, Told
from caev2.ablate.finding import steps_trained
from caev2.ablate.one_run import Work, perform
from caev2.cluster import Surroundings, connect, surroundings
from caev2.errors import Caev2Error, MachineDiffers
from caev2.pretrain.telling.log import last_step
from caev2.pretrain.together.signals import Interrupted
from caev2.progress import Silent

_POLL_S = 0.5
_LOOK_S = 3.0
"""Between two looks at the logs of runs: how far they are."""
_PATIENCE_S = 30.0
_MOST_LOSSES = 3
"""A run whose task was lost so often is told as a failure."""

End = Literal["finished", "busy", "interrupted"]
"""How a task ends: `busy`, another command is at its run; `interrupted`, it was asked to leave, and saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayTasks:
    """Runs as tasks of a Ray cluster; see `engine.Engine`."""

    device: Literal["cpu", "cuda"] = "cpu"
    """What a task computes on: `cuda` takes a GPU for each."""
    address: str = "auto"
    """Of the cluster. `auto`: the one that is running, or else one that is started on this machine."""
    threads: int = 1
    """Cores of each task on a CPU."""

    def work_off(self, works: Sequence[Work], told: Told) -> None:
        """In tasks, as many at a time as there is room for."""
        tasks = _Tasks(connect(self.address, or_start=True), self, told)
        try:
            tasks.start(works)
            tasks.run()
        except BaseException:
            tasks.leave()
            raise

    @property
    def needs(self) -> dict[str, int]:
        """What a task asks of a machine."""
        return {"num_cpus": 1, "num_gpus": 1} if self.device == "cuda" else {"num_cpus": self.threads, "num_gpus": 0}


class _Tasks:
    """The tasks of one command."""

    def __init__(self, ray: ModuleType, engine: RayTasks, told: Told):
        self._ray, self._engine, self._told = ray, engine, told
        self._body = ray.remote(max_retries=0, **engine.needs)(_perform)
        self._tasks: dict[Any, Work] = {}
        self._losses: dict[str, int] = {}
        self._steps: dict[str, int] = {}
        self._patient_until = time.monotonic() + _PATIENCE_S
        self._look_at = time.monotonic() + _LOOK_S

    def start(self, works: Sequence[Work]) -> None:
        """Start a task for each."""
        for work in works:
            self._steps[work.planned.fingerprint] = min(steps_trained(work.folder), work.planned.steps)
            self._start(work)

    def run(self) -> None:
        """Until all have ended."""
        while self._tasks:
            ended, _ = self._ray.wait(list(self._tasks), timeout=0)
            if not ended:
                time.sleep(_POLL_S)  # here, for Ray would make a Ctrl-C of any signal that comes while it waits
            for task in ended:
                self._end(task, self._tasks.pop(task))
            self._look()
            self._grumble(bool(ended))

    def leave(self) -> None:
        """Have each task save and leave; one that takes too long is ended."""
        for task in self._tasks:
            self._ray.cancel(task, force=False)
        if self._tasks:
            _, late = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=LEAVE_S)
            for task in late:
                self._ray.cancel(task, force=True)

    def _start(self, work: Work) -> None:
        self._tasks[self._body.remote(work, self._engine.device, self._engine.threads, surroundings())] = work

    def _end(self, task: Any, work: Work) -> None:
        try:
            end: End = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as problem:
            self._fail(work, problem)
            return
        except self._ray.exceptions.RayError as problem:  # whatever else Ray says, there is no result
            self._lose(work, type(problem).__name__)
            return
        if end == "finished":
            self._trained(work, work.planned.steps)
            self._told.finished(work)
        elif end == "busy":
            time.sleep(WAIT_S)
            self._start(work)
        else:
            self._lose(work, "its machine asked it to leave")

    def _fail(self, work: Work, problem: Any) -> None:
        """Tell of an error; of one that nobody expected, where it arose.

        Raises:
            MachineDiffers: It is the machine's, which would refuse every other run as well.
        """
        if isinstance(problem.cause, MachineDiffers):
            raise problem.cause
        if isinstance(problem.cause, Caev2Error):
            self._told.failed(work, str(problem.cause))
            return
        name, said = type(problem.cause).__name__, (str(problem.cause).splitlines() or ["no message"])[0]
        self._told.warn(f"{work.planned.names[0]}: {problem}")
        self._told.failed(work, f"Its task ended with an error, {name}: {said}. Memory was short, or it is a bug.")

    def _lose(self, work: Work, why: str) -> None:
        word = work.planned.fingerprint
        self._losses[word] = self._losses.get(word, 0) + 1
        if self._losses[word] == _MOST_LOSSES:
            self._told.failed(work, f"Its task was lost {_MOST_LOSSES} times ({why}). Most often memory is short.")
            return
        self._told.warn(f"{work.planned.names[0]}: its task was lost ({why}), and is started again.")
        self._start(work)

    def _look(self) -> None:
        """Tell how far runs are; every machine writes its log where all can read it."""
        if time.monotonic() < self._look_at:
            return
        for work in self._tasks.values():
            self._trained(work, steps_logged(work))
        self._look_at = time.monotonic() + _LOOK_S

    def _trained(self, work: Work, steps: int) -> None:
        """Tell of steps that were not told yet."""
        word = work.planned.fingerprint
        if steps > self._steps[word]:
            self._told.trained(work, steps - self._steps[word])
            self._steps[word] = steps

    def _grumble(self, is_news: bool) -> None:
        if is_news:
            self._patient_until = float("inf")
        if time.monotonic() > self._patient_until:
            self._patient_until = float("inf")
            needs, free = self._engine.needs, self._ray.available_resources()
            self._told.warn(
                f"No run has ended yet. If none has begun: each needs {needs['num_cpus']} CPUs and {needs['num_gpus']} "
                f"GPUs on one machine; {free.get('CPU', 0):g} and {free.get('GPU', 0):g} are free."
            )


def steps_logged(work: Work) -> int:
    """How far a run is by its log, which some steps go without."""
    step = last_step(work.folder)
    return 0 if step is None else min(step + 1, work.planned.steps)


def _perform(work: Work, device: str, threads: int, there: Surroundings) -> End:
    """The body of a task."""
    import torch

    there.settle()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a cluster that a script began in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # by which Ray asks a task to leave
    if device == "cuda":
        keep_to(_cores_of_gpu())
    else:
        torch.set_num_threads(threads)
    try:
        return "finished" if perform(work, device, Silent()) else "busy"
    except Interrupted:
        return "interrupted"


@functools.cache
def _cores_at_first() -> frozenset[int]:
    """All that Ray gave to this process, which may do one task after another."""
    return own_cores()


def _cores_of_gpu() -> frozenset[int]:
    """Of the machine's cores, the share that goes with the GPU that this task has."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    gpus = next((int(node["Resources"].get("GPU", 1)) for node in ray.nodes() if node["NodeID"] == here), 1)
    given = [int(one) for one in ray.get_gpu_ids() if str(one).isdigit()] or [0]
    return share_of(_cores_at_first(), given[0] % gpus, gpus)
