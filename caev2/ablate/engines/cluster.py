"""The engine for a Ray cluster: a task for each run, which Ray starts wherever there is room.

All machines have to see study, images and OUT under the same paths. A task that is lost with its machine is started
again a few times, and goes on from its run's last checkpoint.
"""

import importlib.metadata
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from caev2.ablate.engines.engine import WAIT_S, Told
from caev2.ablate.one_run import Work, perform
from caev2.errors import Caev2Error, ConfigError
from caev2.progress import Silent

_POLL_S = 0.5
_PATIENCE_S = 30.0
_MOST_LOSSES = 3
"""A run whose task was lost so often is told as a failure."""
_DECIDE_WEIGHTS = ("caev2", "torch", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class RayTasks:
    """Runs as tasks of a Ray cluster; see `engine.Engine`."""

    device: str = "cpu"
    """What a task computes on: `cuda` takes a GPU for each."""
    address: str = "auto"
    """Of the cluster. `auto`: the one that is running, or else one that is started on this machine."""
    threads: int = 1
    """Cores of each task on a CPU."""

    def work_off(self, works: Sequence[Work], told: Told) -> None:
        """In tasks, as many at a time as there is room for."""
        ray = connect(self.address)
        _Tasks(ray, self, works, told).run()

    @property
    def needs(self) -> dict[str, int]:
        """What a task asks of a machine."""
        return {"num_cpus": 1, "num_gpus": 1} if self.device == "cuda" else {"num_cpus": self.threads, "num_gpus": 0}


class _Tasks:
    """The tasks of one command."""

    def __init__(self, ray: ModuleType, engine: RayTasks, works: Sequence[Work], told: Told):
        self._ray, self._engine, self._told = ray, engine, told
        self._body = ray.remote(max_retries=0, **engine.needs)(_perform)
        self._tasks: dict[Any, Work] = {}
        self._losses: dict[str, int] = {}
        self._patient_until = time.monotonic() + _PATIENCE_S
        for work in works:
            self._start(work)

    def run(self) -> None:
        """Until all have ended."""
        try:
            while self._tasks:
                ended, _ = self._ray.wait(list(self._tasks), timeout=_POLL_S)
                for task in ended:
                    self._end(task, self._tasks.pop(task))
                self._grumble(bool(ended))
        finally:
            for task in self._tasks:
                self._ray.cancel(task, force=True)

    def _start(self, work: Work) -> None:
        self._tasks[self._body.remote(work, self._engine.device, self._engine.threads, _here())] = work

    def _end(self, task: Any, work: Work) -> None:
        known = self._ray.exceptions
        try:
            outcome = self._ray.get(task)
        except (
            known.WorkerCrashedError,
            known.NodeDiedError,
            known.LocalRayletDiedError,
            known.OutOfMemoryError,
        ) as problem:
            self._lose(work, type(problem).__name__)
            return
        except known.RayTaskError as problem:
            if not isinstance(problem.cause, Caev2Error):
                raise
            self._told.failed(work, str(problem.cause))
            return
        if outcome:
            self._told.finished(work)
        else:  # another command is at it
            time.sleep(WAIT_S)
            self._start(work)

    def _lose(self, work: Work, why: str) -> None:
        word = work.planned.fingerprint
        self._losses[word] = self._losses.get(word, 0) + 1
        if self._losses[word] == _MOST_LOSSES:
            self._told.failed(work, f"Its task was lost {_MOST_LOSSES} times ({why}). Most often memory is short.")
            return
        self._told.warn(f"{work.planned.names[0]}: its task was lost ({why}), and is started again.")
        self._start(work)

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


def connect(address: str) -> ModuleType:
    """Ray, connected to a cluster; with `auto`, to one that it starts here where none is running.

    Raises:
        ConfigError: It is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise ConfigError("--engine ray needs Ray: pip install 'caev2[ray]', on every machine.") from None
    if ray.is_initialized():
        return ray
    quietly: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        ray.init(address=address, **quietly)
    except (OSError, ValueError) as problem:  # a ConnectionError is an OSError
        if address != "auto":
            raise ConfigError(
                f"There is no Ray cluster at {address!r} ({str(problem).splitlines()[0]}). Start one with `ray start "
                "--head`, or leave --ray-address away."
            ) from None
        ray.init(address="local", include_dashboard=False, **quietly)
    return ray


def best_device(address: str) -> str:
    """`cuda` if any machine of a cluster has a GPU, else `cpu`."""
    return "cuda" if connect(address).cluster_resources().get("GPU", 0) else "cpu"


def _here() -> tuple[str, dict[str, str]]:
    """Where the command runs, and the versions of what decides weights."""
    return str(Path.cwd()), {name: importlib.metadata.version(name) for name in _DECIDE_WEIGHTS}


def _perform(work: Work, device: str, threads: int, there: tuple[str, dict[str, str]]) -> bool:
    """The body of a task."""
    import torch

    folder, versions = there
    for name, here in _here()[1].items():
        if here != versions[name]:
            raise ConfigError(
                f"A machine of the cluster has {name} {here}, the command's has {versions[name]}. Install the same "
                "versions everywhere."
            )
    try:
        os.chdir(folder)
    except OSError as problem:
        raise ConfigError(
            f"A machine of the cluster has no folder {folder} ({problem.strerror}). Run the command in one that all "
            "machines share."
        ) from None
    if device == "cpu":
        torch.set_num_threads(threads)
    return perform(work, device, Silent())
