"""Leaving in order: a signal lets the current step end, and a checkpoint be saved, before the run stops."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """The run was asked to leave, saved a checkpoint and left: no error, it did so in order."""

    def __init__(self, signal_number: int, step: int):
        super().__init__(f"Stopped at step {step}; a checkpoint was saved. The same command goes on from there.")
        self.signal_number = signal_number


@contextmanager
def catching_signals() -> Iterator[list[int]]:
    """A list that a SIGTERM or SIGINT is appended to, instead of ending the process."""
    caught: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    try:
        before = {number: signal.signal(number, lambda number, _: caught.append(number)) for number in numbers}
    except ValueError:  # not in the main thread: nobody sends us signals there
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
