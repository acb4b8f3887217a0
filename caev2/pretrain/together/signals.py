"""Leaving in order: a signal lets the current step end, and a checkpoint be saved, before the run stops.

SIGTERM is how systems end a process, SIGINT is Ctrl-C, and SIGUSR1 is what batch systems are told to send before the
time is up. The command ends with 128 plus the signal's number, as shells report it: 143, 130 and 138.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TypeVar

Item = TypeVar("Item")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
FORCE_S = 1.0
"""Ctrl-C again, so long after the first, leaves at once; sooner, it is the same one, sent twice."""
PATIENCE_S = 5.0
"""How long a run that was asked to leave waits for its next batch: batch systems kill some 30 s after a SIGTERM."""


class Interrupted(Exception):
    """The run was asked to leave, saved a checkpoint and left: no error, it did so in order.

    Args:
        signal_number: Which signal asked first.
        step: Steps done; none: training had not begun.
    """

    def __init__(self, signal_number: int, step: int | None):
        said = "Stopped before training began" if step is None else f"Stopped at step {step}; a checkpoint was saved"
        super().__init__(f"{said}. The same command goes on from there.")
        self.signal_number = signal_number


class _OutOfPatience(KeyboardInterrupt):
    """A run that was asked to leave has waited long enough; no library takes it for an error of its own."""


class Heard:
    """Signals so far, and whether somebody insists."""

    def __init__(self):
        self._first_ctrl_c: float | None = None

    def is_forced(self, number: int) -> bool:
        """Whether this is Ctrl-C once more, `FORCE_S` after the first or later."""
        if number != signal.SIGINT:
            return False
        now = time.monotonic()
        if self._first_ctrl_c is None:
            self._first_ctrl_c = now
        return now - self._first_ctrl_c >= FORCE_S


class Leaving:
    """Which signal asked the run to leave, and the end of its work when one did."""

    def __init__(self):
        self.number: int | None = None
        self._heard = Heard()
        self._is_waiting = False

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal, and give way to impatience.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed again.
        """
        del frame
        if self.number is None:
            self.number = number
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
        if self._heard.is_forced(number):
            raise KeyboardInterrupt

    def lose_patience(self, number: int, frame: FrameType | None) -> None:
        """Stop waiting for an item, if that is what is done."""
        del number, frame
        if self._is_waiting:
            raise _OutOfPatience

    def until_asked(self, items: Iterator[Item]) -> Iterator[Item]:
        """The same items, up to the moment when a signal comes.

        What is done with an item is never cut short. What is done to get one is, after a while: it may take minutes
        where a server does not answer. (Not at once: workers that are sending a batch would say that nobody takes it.)
        """
        while self.number is None:
            try:
                self._is_waiting = True
                item = next(items)
                self._is_waiting = False
            except StopIteration:
                return
            except _OutOfPatience:
                return
            finally:
                self._is_waiting = False
            yield item


@contextmanager
def catching_signals() -> Iterator[Leaving]:
    """What a signal is told to, instead of ending the process."""
    leaving = Leaving()
    try:
        before = {signal.SIGALRM: signal.signal(signal.SIGALRM, leaving.lose_patience)}
    except ValueError:  # not in the main thread: nobody sends us signals there
        yield leaving
        return
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell's background job has Ctrl-C
            before[number] = signal.signal(number, leaving.hear)
    try:
        yield leaving
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def leaving_early() -> Iterator[None]:
    """Leave at once at a SIGUSR1 that comes before training, as the command does at the other signals."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        raise Interrupted(number, None)

    try:
        before = signal.signal(signal.SIGUSR1, leave)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
