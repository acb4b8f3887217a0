"""The engine for a Ray cluster: tasks that ask one foreman for block after block.

Ray knows which machines there are, starts tasks where there is room, and tells when one is lost; its blocks are then
handed out again and another task is started. Machines may join and leave meanwhile. All of them have to see the images
and the store under the same paths.
"""

import itertools
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from caev2.cluster import Surroundings, connect, losses, surroundings
from caev2.errors import Caev2Error, WorkerDied
from caev2.extract.engines.engine import decode_workers
from caev2.extract.engines.foreman import MOST_DEATHS, Foreman
from caev2.extract.job import Job
from caev2.extract.tally import Tally
from caev2.extract.teachers.teacher import Teacher
from caev2.extract.units import ImageDone
from caev2.progress import Progress, Silent
from caev2.store.writer import StoreWriter

_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 15.0
_TELL_IMAGES = 16
_MOST_TASKS = 1024  # that may wait for machines at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster:
    """Computes on a Ray cluster; see `engine.Engine`."""

    device: str = "cpu"
    """What a task computes on: `cuda` takes a GPU for each."""
    address: str = "auto"
    """Of the cluster, as `ray.init` takes it."""
    most_tasks: int | None = None
    """How many tasks at a time; none: as many as the cluster has room for, now or later."""

    @property
    def own_device(self) -> str:
        """This process only needs to know the teacher."""
        return "cpu"

    def workers(self, wanted: int | None) -> int:
        """Of each task, which Ray is asked a CPU for each; none wanted: 7 for a GPU, none for a CPU."""
        return decode_workers(wanted, self.device) if wanted is not None else 7 if self.device == "cuda" else 0

    def calibrate(self, job: Job, writer: StoreWriter, teacher: Teacher, progress: Progress) -> None:
        """In one task."""
        del teacher
        if not writer.uncalibrated():
            return
        ray = connect(self.address)
        progress.say("extract: calibrating on a machine of the cluster")
        task = ray.remote(**self.needs(job))(_calibrate).remote(job, self.device, surroundings())
        patient_until = time.monotonic() + _PATIENCE_SECONDS
        while not ray.wait([task], timeout=_POLL_SECONDS)[0]:
            if time.monotonic() > patient_until:
                patient_until = float("inf")
                progress.warn(
                    f"Still calibrating. If no machine has room: a task needs {_say_needs(ray, self.needs(job))}."
                )
        try:
            _result_of(ray, task)
        except losses(ray) as problem:
            raise WorkerDied(
                f"The worker of the cluster that calibrated was lost, again and again ({type(problem).__name__}). Most "
                "often memory is short. Then run the same command again."
            ) from None
        writer.uncalibrated()  # takes over what was learned

    def compute(
        self,
        job: Job,
        writer: StoreWriter,
        teacher: Teacher,
        blocks: Sequence[int],
        tally: Tally,
        progress: Progress,
    ) -> None:
        """In tasks, until all blocks are done."""
        del teacher
        crew = _Crew(connect(self.address), self, job, blocks)
        try:
            while not crew.is_over():
                crew.hire(progress)
                crew.listen(writer, tally, progress)
        finally:
            crew.dismiss()

    def needs(self, job: Job) -> dict[str, int]:
        """What a task asks of a machine: a GPU, or cores for the teacher's threads; and one for each decoder."""
        if self.device == "cuda":
            return {"num_cpus": 1 + job.workers, "num_gpus": 1}
        return {"num_cpus": job.threads + job.workers, "num_gpus": 0}


class _Crew:
    """The tasks of one extraction, and what they say."""

    def __init__(self, ray: ModuleType, cluster: RayCluster, job: Job, blocks: Sequence[int]):
        self._ray, self._device = ray, cluster.device
        self._needs = cluster.needs(job)
        self._most = min(len(blocks), _MOST_TASKS, cluster.most_tasks or _MOST_TASKS)
        self._job = ray.put(job)
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            node_id=ray.get_runtime_context().get_node_id(), soft=False
        )  # on the one machine that does not leave
        self._foreman = ray.remote(num_cpus=0, scheduling_strategy=here)(_Foreman).remote(blocks)
        self._tasks: dict[Any, str] = {}
        self._idle = self._over = False
        self._patient_until = time.monotonic() + _PATIENCE_SECONDS

    def is_over(self) -> bool:
        """Whether every block was handed out, and every task that got one has left."""
        return self._over

    def hire(self, progress: Progress) -> None:
        """Have as many tasks as there may be; those that the cluster has no room for wait for machines to join."""
        task = self._ray.remote(max_retries=0, **self._needs)(_work)
        while len(self._tasks) < self._most and not self._idle:
            name = uuid.uuid4().hex[:8]
            self._tasks[task.remote(self._job, name, self._foreman, self._device, surroundings())] = name
        if time.monotonic() > self._patient_until:
            self._patient_until = float("inf")
            needs = _say_needs(self._ray, self._needs)
            progress.warn(f"No machine of the Ray cluster has had room yet: a task needs {needs}.")

    def listen(self, writer: StoreWriter, tally: Tally, progress: Progress) -> None:
        """Wait a moment for news: what was done, who was lost.

        Raises:
            Caev2Error: A task raised it.
            WorkerDied: One block killed several.
        """
        ended, _ = self._ray.wait(list(self._tasks), timeout=_POLL_SECONDS) if self._tasks else ((), ())
        self._hear(tally, progress)
        for task in ended:
            name = self._tasks.pop(task)
            try:
                _result_of(self._ray, task)
            except losses(self._ray) as problem:
                progress.warn(
                    f"A worker of the cluster was lost ({type(problem).__name__}); its blocks are given away."
                )
                self._give_away(name, writer, tally)

    def _hear(self, tally: Tally, progress: Progress) -> None:
        done, warnings, self._idle, self._over = self._ray.get(self._foreman.hear.remote())
        if done:
            self._patient_until = float("inf")
        for warning in warnings:
            progress.warn(warning)
        for image in done:
            tally.image_done(image)

    def _give_away(self, name: str, writer: StoreWriter, tally: Tally) -> None:
        """Hand out again what a lost task had begun."""
        given = self._ray.get(self._foreman.given.remote(name))
        finished = [block for block in given if writer.is_done(block)]
        self._idle = self._over = False
        for block in finished:
            tally.block_finished(block, len(writer.manifest.images_of_block(block)) * writer.manifest.views)
        for block in self._ray.get(self._foreman.take_back.remote(name, finished)):
            tally.block_lost(block)
        if (block := self._ray.get(self._foreman.deadly.remote())) is not None:
            raise WorkerDied(
                f"{MOST_DEATHS} workers of the cluster died over block {block} "
                f"({writer.listing.keys[writer.manifest.images_of_block(block)[0]]} and what follows). Most often "
                "memory is short: let it decode in fewer processes (--set workers=1). Then run the same command again."
            )

    def dismiss(self) -> None:
        """Leave no task behind."""
        for task in self._tasks:
            self._ray.cancel(task, force=True)
        self._ray.kill(self._foreman)


def _say_needs(ray: ModuleType, needs: dict[str, int]) -> str:
    there = ray.available_resources()
    return (
        f"{needs['num_cpus']} CPUs and {needs['num_gpus']} GPUs on one machine; all machines together have "
        f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g} free. Let it decode in fewer processes (--set "
        "workers=1), or wait for others to end"
    )


class _Foreman(Foreman):
    """The foreman as an actor, who also takes notice of what tasks tell."""

    def __init__(self, blocks: Sequence[int]):
        super().__init__(blocks)
        self._done: list[ImageDone] = []
        self._warnings: list[str] = []

    def tell(self, done: Sequence[ImageDone]) -> None:
        """Images are through."""
        self._done.extend(done)

    def warn(self, message: str) -> None:
        """Something the user should read."""
        self._warnings.append(message)

    def hear(self) -> tuple[list[ImageDone], list[str], bool, bool]:
        """What was told since the last time; whether no block waits; whether none is being computed either."""
        done, warnings, self._done, self._warnings = self._done, self._warnings, [], []
        return done, warnings, self.is_idle(), self.is_over()


class _Ask(Silent):
    """The foreman, as a task sees it."""

    def __init__(self, ray: ModuleType, foreman: Any, name: str):
        self._ray, self._foreman, self._name = ray, foreman, name
        self._done: list[ImageDone] = []
        self._lock = threading.Lock()

    def blocks(self) -> Iterator[int]:
        """Block after block, until there is none left."""
        while (block := self._ray.get(self._foreman.ask.remote(self._name))) is not None:
            yield block

    def image_done(self, done: ImageDone) -> None:
        """Tell of an image, together with others; in any thread."""
        with self._lock:
            self._done.append(done)
            if len(self._done) >= _TELL_IMAGES:
                self._tell()

    def _tell(self) -> None:
        done, self._done = self._done, []
        self._foreman.tell.remote(done)

    def warn(self, message: str) -> None:
        """Pass it on."""
        self._foreman.warn.remote(message)

    def leave(self) -> None:
        """There is nothing left to do, and nothing begun."""
        with self._lock:
            self._tell()
        self._ray.get(self._foreman.leave.remote(self._name))


def _work(job: Job, name: str, foreman: Any, device: str, there: Surroundings) -> None:
    """The body of a task."""
    import ray

    _settle(job, there)
    asked = _Ask(ray, foreman, name)
    blocks = asked.blocks()
    first = next(blocks, None)
    if first is not None:  # else no reason to load a teacher
        teacher = job.load_teacher(device)
        writer = job.join_store(teacher)
        try:
            job.compute(writer, teacher, device, itertools.chain([first], blocks), asked.image_done, asked)
        finally:
            writer.close()
    asked.leave()


def _calibrate(job: Job, device: str, there: Surroundings) -> None:
    """The body of the task that lets the codec learn."""
    _settle(job, there)
    teacher = job.load_teacher(device)
    writer = job.join_store(teacher)
    try:
        job.calibrate(writer, teacher, device, Silent())
    finally:
        writer.close()


def _settle(job: Job, there: Surroundings) -> None:
    there.settle()
    torch.set_num_threads(job.threads)


def _result_of(ray: ModuleType, task: Any) -> Any:
    """What a task returned; what it raised as it raised it."""
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as problem:
        if isinstance(problem.cause, Caev2Error):
            raise problem.cause from None
        raise
