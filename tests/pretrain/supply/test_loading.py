"""More workers where batches are waited for, and the same batches whatever their number."""

from collections.abc import Iterable, Iterator

import pytest

from caev2.pretrain.supply.loading import FIRST_WORKERS, MOST_WAITED, cores, grow
from caev2.workers import in_order

WINDOW = 10


class Time:
    """Seconds that pass when somebody says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def double(step: int) -> int:
    return 2 * step


class Factory:
    """A loader whose items take `seconds` to make, shared by its workers, and a consumer that takes a second for each."""

    def __init__(self, seconds: float):
        self.time, self.started, self._seconds = Time(), list[tuple[int, int]](), seconds

    def load(self, steps: Iterable[int], workers: int) -> Iterator[int]:
        for place, step in enumerate(steps):
            if place == 0:
                self.started.append((step, workers))
            self.time.now += max(0.0, self._seconds / workers - 1.0)
            yield double(step)

    def consume(self, steps: range, most: int) -> list[int]:
        found = []
        for item in grow(self.load, steps, first=1, most=most, window=WINDOW, clock=self.time):
            self.time.now += 1.0
            found.append(item)
        return found


def test_a_slow_loader_gets_more_workers_until_nobody_waits():
    factory = Factory(seconds=3.0)
    assert factory.consume(range(5, 105), most=16) == [double(step) for step in range(5, 105)]
    assert [workers for _, workers in factory.started] == [1, 2, 4]
    assert factory.started[0][0] == 5
    assert [step for step, _ in factory.started[1:]] == [5 + 2 * WINDOW, 5 + 4 * WINDOW]


def test_there_are_never_more_workers_than_allowed():
    factory = Factory(seconds=100.0)
    assert factory.consume(range(200), most=3) == [double(step) for step in range(200)]
    assert [workers for _, workers in factory.started] == [1, 2, 3]


@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.0 + MOST_WAITED / 2])
def test_a_loader_that_keeps_up_is_left_alone(seconds):
    factory = Factory(seconds)
    factory.consume(range(100), most=16)
    assert factory.started == [(0, 1)]


@pytest.mark.parametrize("steps", [range(0), range(3, 4), range(2 * WINDOW), range(2 * WINDOW + 1)])
def test_no_step_is_lost_at_the_end(steps):
    assert Factory(seconds=9.0).consume(steps, most=8) == [double(step) for step in steps]


def test_worker_processes_hand_over_in_order():
    time = Time()

    def load(steps: Iterable[int], workers: int) -> Iterator[int]:
        for item in in_order(double, steps, workers=workers):
            time.now += 1.0  # every item is waited for
            yield item

    found = list(grow(load, range(60), first=1, most=3, window=WINDOW, clock=time))
    assert found == [double(step) for step in range(60)]


def test_a_process_may_use_a_core_at_least():
    assert cores() >= 1
    assert FIRST_WORKERS >= 1
