"""Work in a thread of its own, in order, a little behind whoever hands it over."""

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_POLL_SECONDS = 0.1
_END, _ABANDON = object(), object()


class Background(Generic[Item, Result]):
    """Gives items to a function that runs in a thread of its own.

        with Background(write, ahead=16) as background:
            for item in items:
                background.put(item)
            written = background.finish()

    What the function raises arrives at the next `put` or at `finish`. If the block is left by an error, the function
    gets an `Abandoned` from its iterator, so that it can clean up.

    Args:
        consume: What is done with the items: called once, with an iterator over them.
        ahead: How many items may wait.
    """

    def __init__(self, consume: Callable[[Iterator[Item]], Result], *, ahead: int):
        self._consume = consume
        self._items: queue.Queue = queue.Queue(maxsize=ahead)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="background")
        self._running: Future[Result] | None = None

    def __enter__(self) -> "Background[Item, Result]":
        return self

    def __exit__(self, *problem: object) -> None:
        if self._running is not None and not self._running.done():
            self._offer(_ABANDON)
        self._executor.shutdown(wait=True)

    def put(self, item: Item) -> None:
        """Hand an item over; waits while too many wait already."""
        if self._running is None:  # not earlier: whoever makes the items may fork first, which threads do not like
            self._running = self._executor.submit(self._consume, self._given())
        self._offer(item)
        if self._running.done():
            self._running.result()

    def finish(self) -> Result:
        """Say that there are no more items; what the function returned."""
        if self._running is None:
            return self._consume(iter(()))
        self._offer(_END)
        return self._running.result()

    def _offer(self, item: object) -> None:
        """Put something into the queue, unless nobody takes from it any more."""
        assert self._running is not None
        while not self._running.done():
            try:
                self._items.put(item, timeout=_POLL_SECONDS)
                return
            except queue.Full:
                continue

    def _given(self) -> Iterator[Item]:
        while (item := self._items.get()) is not _END:
            if item is _ABANDON:
                raise Abandoned
            yield item


class Abandoned(Exception):
    """Whoever handed items over has stopped in the middle."""
