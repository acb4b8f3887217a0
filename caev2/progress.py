"""How long work tells where it is: a protocol that the command line fills, and a silent one."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Somebody who is told how far a piece of long work has come."""

    def start(self, what: str, total: int, done: int = 0) -> None:
        """A piece of work begins: its name, its size in items, and how many were done by an earlier run."""

    def advance(self, items: int, **figures: float | int) -> None:
        """More items are done; `figures` are the latest values worth showing."""

    def finish(self) -> None:
        """The piece of work is over."""

    def say(self, message: str) -> None:
        """Something worth knowing about the work."""

    def warn(self, message: str) -> None:
        """Something the user should read, once."""


class Silent:
    """Nobody is told."""

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Say nothing."""

    def advance(self, items: int, **figures: float | int) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""

    def say(self, message: str) -> None:
        """Say nothing."""

    def warn(self, message: str) -> None:
        """Say nothing."""
