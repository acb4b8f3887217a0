"""Batches prepared ahead, by as many worker processes as are needed.

A batch is a pure function of its step. So the number of workers may change on the way, and nothing but the speed
depends on it.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from caev2.pretrain.supply.batch_pool import BatchPool
from caev2.pretrain.supply.batches import Batch, StepBatches
from caev2.workers import in_order

FIRST_WORKERS = 4
"""For a GPU, unless fewer cores are there. A core makes about 2,000 batches' images a second."""
WINDOW_STEPS = 100
"""After so many steps it is looked at how long they waited; more than are prepared ahead at any time."""
MOST_WAITED = 0.03
"""Share of the time that steps may wait for batches before there are more workers."""
_MOST_AHEAD = 16
"""Batches that workers have ready or in work, all together, and one a worker at least: a large one takes half a GB."""

Item = TypeVar("Item")


def load_adaptively(
    batches: StepBatches, steps: range, workers: int | None, *, device: str, ranks_of_machine: int = 1
) -> Iterator[Batch]:
    """The batches of some steps in order, prepared ahead by worker processes.

    Without a number, a CPU gets none: a worker takes from the step what it gives to it. For a GPU there are a few at
    first, and twice as many when steps had to wait, up to this rank's share of the cores.

    Args:
        batches: What to load.
        steps: Of the run.
        workers: Processes; none: as many as it takes.
        device: What the batches are for, as torch spells it.
        ranks_of_machine: Processes that train on this machine.

    Raises:
        Caev2Error: A batch cannot be made.
        WorkerDied: A worker was killed.
    """
    on_gpu = device.startswith("cuda")

    def load(some: Iterable[int], count: int) -> Iterator[Batch]:
        return load_batches(batches, some, count, pin_memory=on_gpu)

    if workers is not None or not on_gpu:
        return load(steps, workers or 0)
    most = max(1, cores() // ranks_of_machine - 1)  # one is for whoever trains
    return grow(load, steps, first=min(FIRST_WORKERS, most), most=most)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_batches(
    batches: StepBatches, steps: Iterable[int], workers: int, *, pin_memory: bool = False
) -> Iterator[Batch]:
    """The batches of some steps in order, prepared ahead by a fixed number of workers; see `in_order`."""
    if workers == 0:
        return in_order(batches.batch_of, steps, workers=0, pin_memory=pin_memory)
    ahead = max(1, min(4, _MOST_AHEAD // workers))
    pool = BatchPool(batches, workers * ahead)
    packed = in_order(pool.filler(), pool.assign(steps), workers=workers, ahead=ahead, pin_memory=pin_memory)
    return map(pool.unpack, packed)


def grow(
    load: Callable[[Iterable[int], int], Iterator[Item]],
    steps: Iterable[int],
    *,
    first: int,
    most: int,
    window: int = WINDOW_STEPS,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Item]:
    """Items in order, with twice the workers whenever whoever uses them waits too long.

    The workers there are finish what was given to them, then others take over at the next step.

    Args:
        load: Makes items of steps, with so many workers.
        steps: What to make items of.
        first: Workers at the beginning.
        most: Workers at the end, at most.
        window: Steps over which waiting is measured.
        clock: Seconds since any moment.
    """
    left, workers = iter(steps), first
    while (step := next(left, None)) is not None:
        waiting = _Waiting(window, clock)
        given = _until(itertools.chain([step], left), lambda: workers < most and waiting.too_long)  # noqa: B023
        yield from waiting.watch(load(given, workers))
        workers = min(2 * workers, most)


def _until(steps: Iterator[int], ended: Callable[[], bool]) -> Iterator[int]:
    """Steps, as long as no end was asked for."""
    while not ended():
        step = next(steps, None)
        if step is None:
            return
        yield step


class _Waiting:
    """How long items were waited for."""

    def __init__(self, window: int, clock: Callable[[], float]):
        self._window, self._clock = window, clock
        self.too_long = False
        """Whether a whole window of steps waited for too large a share of its time."""

    def watch(self, items: Iterator[Item]) -> Iterator[Item]:
        """The same items. What the first window waits, while workers start, does not count."""
        begun, waited = self._clock(), 0.0
        for count in itertools.count(1):
            asked = self._clock()
            item = next(items, None)
            waited += self._clock() - asked
            if item is None:
                return
            yield item
            if count % self._window == 0:
                took = self._clock() - begun
                self.too_long |= count > self._window and waited > MOST_WAITED * took
                begun, waited = self._clock(), 0.0
