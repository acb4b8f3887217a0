"""Hands out blocks to workers: one after another, and again when a worker is lost."""

from collections import Counter, deque
from collections.abc import Iterable

MOST_DEATHS = 3
"""Workers that may die over one block before it is held to be the cause."""


class Foreman:
    """Which blocks wait, and who works on which.

    Args:
        blocks: To be computed, in the order in which they are best begun.
    """

    def __init__(self, blocks: Iterable[int]):
        self._waiting = deque(blocks)
        self._given: dict[str, list[int]] = {}
        self._deaths: Counter[int] = Counter()

    def ask(self, worker: str) -> int | None:
        """The next block for a worker; none: there is nothing left to begin."""
        if not self._waiting:
            return None
        block = self._waiting.popleft()
        self._given.setdefault(worker, []).append(block)
        return block

    def take_back(self, worker: str, finished: Iterable[int]) -> list[int]:
        """A worker is lost: what it had and did not finish waits again, before all others.

        Args:
            worker: Its name.
            finished: Blocks that are known to be done.

        Returns:
            The blocks that are handed out again.
        """
        done = set(finished)
        lost = [block for block in self._given.pop(worker, []) if block not in done]
        self._waiting.extendleft(reversed(lost))
        if lost:
            self._deaths[lost[0]] += 1  # the one it was at; the others were only prepared
        return lost

    def leave(self, worker: str) -> None:
        """A worker has done all that it was given."""
        self._given.pop(worker, None)

    def given(self, worker: str) -> tuple[int, ...]:
        """What a worker was given so far."""
        return tuple(self._given.get(worker, ()))

    def is_idle(self) -> bool:
        """Whether no block waits to be begun."""
        return not self._waiting

    def is_over(self) -> bool:
        """Whether none waits, and none is being computed."""
        return not self._waiting and not self._given

    def deadly(self) -> int | None:
        """A block over which too many workers died."""
        return next((block for block, deaths in self._deaths.items() if deaths >= MOST_DEATHS), None)
