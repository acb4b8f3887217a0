"""One run from its beginning to its numbers: trained, or gone on with, then judged. What every engine calls."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from caev2.ablate.finding import Judging, find_result, kinds_found, remove_results, steps_trained
from caev2.ablate.grids import EVALUATIONS
from caev2.ablate.lessons import lesson_maker
from caev2.ablate.plan import PlannedRun
from caev2.errors import ConfigError
from caev2.eval.entrants import RunEntry
from caev2.eval.result import save_result
from caev2.eval.run import probe
from caev2.eval.while_training import NearestNeighbours
from caev2.pretrain.learning.lesson import Lesson, MakeLesson
from caev2.pretrain.run import teach
from caev2.pretrain.together.ranks import Ranks
from caev2.progress import Progress
from caev2.store.disk import writing
from caev2.store.images import Place
from caev2.store.reader import Store

_LOCK = ".ablate"
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a file system answers that keeps no locks; then nothing keeps two commands apart but `caev2 pretrain` itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Everything that a process, be it on another machine, has to know of a run."""

    planned: PlannedRun
    folder: Path
    """Of the run."""
    store: Path
    images: Place | None
    judging: Judging
    teacher: str | None = None
    """Where the weights of a live teacher lie, if not where they are looked for."""


def perform(work: Work, device: str, progress: Progress) -> bool:
    """Train a run to its end and judge it, or what of that is not done yet.

    Args:
        work: Which run.
        device: Where to compute.
        progress: Told of steps of training.

    Returns:
        Whether it is done; if not, another command is at it.

    Raises:
        Caev2Error: It cannot be trained or judged.
        Interrupted: A signal asked training to leave.
    """
    with _claimed(work.folder) as is_ours:
        if is_ours:
            _train(work, device, progress)
            _judge(work, device, progress)
        return is_ours


def _train(work: Work, device: str, progress: Progress) -> None:
    planned, store = work.planned, Store(work.store)
    if steps_trained(work.folder) >= planned.steps:
        return
    judge = None
    if planned.curves:
        orientation = store.manifest.spec.views.orientation
        judge = NearestNeighbours(work.judging.images, device=device, orientation=orientation, progress=progress)
    make = lesson_maker(planned.recipe, store, planned.online, work.images, device, teacher=work.teacher)
    make = _checked(make, planned)
    remove_results(work.folder, planned.steps)
    torch.compiler.reset()  # it must not matter what this process compiled for runs before: recompilations are limited
    teach(make, work.folder, device=device, progress=progress, judge=judge)


def _checked(make: MakeLesson, planned: PlannedRun) -> MakeLesson:
    """The same lesson, refused where it is another than was planned: its folder would be called like another run."""

    def made(*, device: str, ranks: Ranks, progress: Progress) -> Lesson:
        lesson = make(device=device, ranks=ranks, progress=progress)
        found = lesson.identify(None).fingerprint()
        if found != planned.fingerprint:
            raise ConfigError(
                f"{planned.names[0]} was planned as run {planned.fingerprint} and would become {found}: its store was "
                "changed meanwhile, or this machine computes in another precision than the one that planned. Run the "
                "same command again; where machines differ, add --set precision=fp32 or bf16."
            )
        return lesson

    return made


def _judge(work: Work, device: str, progress: Progress) -> None:
    """Ask what was not asked; together with what was, so that `result.json` says all there is."""
    planned, judging, run = work.planned, work.judging, work.folder
    if find_result(run, judging, planned.kinds, planned.steps) is not None:
        return
    wanted = {*kinds_found(run, judging, planned.steps), *planned.kinds}
    entry = RunEntry.find(run)
    result = probe(
        [entry.student()],
        judging.images,
        kinds=[kind for kind in EVALUATIONS if kind in wanted],
        orientation=entry.orientation,
        seed=judging.seed,
        settings=judging.settings,
        device=device,
        progress=progress,
        run=entry.facts(),
        cache=None,
    )
    save_result(result, run)


@contextlib.contextmanager
def _claimed(run: Path) -> Iterator[bool]:
    """Keep other commands from a run while it is trained and judged; the operating system ends it with the process."""
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as problem:
        return problem.errno in _NO_LOCKS
    return True
