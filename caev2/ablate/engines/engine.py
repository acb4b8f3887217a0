"""What an engine is: somebody who does pieces of work in any order, and tells what became of each."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from caev2.ablate.one_run import Work

WAIT_S = 1.0
"""Between two looks at a run that another command is at."""
LEAVE_S = 60.0
"""How long those that were asked to leave may take to save what they trained."""


@runtime_checkable
class Told(Protocol):
    """Whoever is told how the work goes."""

    def trained(self, work: Work, steps: int) -> None:
        """More steps of a run are done."""
        ...

    def finished(self, work: Work) -> None:
        """A run is trained and judged."""
        ...

    def failed(self, work: Work, why: str) -> None:
        """A run cannot be finished, which does not stop the others."""
        ...

    def warn(self, message: str) -> None:
        """Something the user should read, once."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Does pieces of work."""

    @property
    def device(self) -> str:
        """What runs are trained on, for their precision: `cpu` or `cuda`."""
        ...

    def work_off(self, works: Sequence[Work], told: Told) -> None:
        """Do all of it.

        Raises:
            Interrupted: A signal asked to leave; what was trained is saved.
            KeyboardInterrupt: The same, outside of training.
        """
        ...


class Relay:
    """The progress of one run's training, passed on; of its judging there is nothing to tell.

    Args:
        work: Which run.
        told: To whom.
    """

    def __init__(self, work: Work, told: Told):
        self._work, self._told, self._is_training = work, told, False

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Look whether this is training."""
        del total, done
        self._is_training = what == "pretrain"

    def advance(self, items: int, **figures: float | int) -> None:
        """Pass steps on."""
        del figures
        if self._is_training and items:
            self._told.trained(self._work, items)

    def finish(self) -> None:
        """Training is over."""
        self._is_training = False

    def say(self, message: str) -> None:
        """Of one run among many, little is worth a line."""

    def warn(self, message: str) -> None:
        """Pass it on, with the run that it is about."""
        self._told.warn(f"{self._work.planned.names[0]}: {message}")
