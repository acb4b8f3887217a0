"""Open files of a source, a few at once; the one used longest ago makes room."""

import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable


@runtime_checkable
class Closable(Protocol):
    """Anything that is open."""

    def close(self) -> None:
        """Let go of it."""
        ...


Handle = TypeVar("Handle", bound=Closable)


class Handles(Generic[Handle]):
    """Open files by name. A process that was forked, or got this by a pickle, opens its own.

    Args:
        open_one: Opens the file of a name.
        most: How many are open at once.
    """

    def __init__(self, open_one: Callable[[str], Handle], most: int):
        self._open_one, self._most = open_one, most
        self._begin()

    def _begin(self) -> None:
        self._process, self._handles = os.getpid(), OrderedDict[str, Handle]()
        weakref.finalize(self, _close_all, self._handles, self._process)

    def __getstate__(self) -> dict:
        """What travels to a worker process: nothing that is open."""
        return {"_open_one": self._open_one, "_most": self._most}

    def __setstate__(self, state: dict) -> None:
        """Begin anew."""
        self.__dict__.update(state)
        self._begin()

    def of(self, name: str) -> Handle:
        """The open file of a name, valid until the next call."""
        if self._process != os.getpid():  # positions of open files are shared with the parent
            self._begin()
        if name not in self._handles:
            while len(self._handles) >= self._most:
                self._handles.popitem(last=False)[1].close()
            self._handles[name] = self._open_one(name)
        self._handles.move_to_end(name)
        return self._handles[name]


def _close_all(handles: MutableMapping[str, Any], process: int) -> None:
    while handles and process == os.getpid():
        handles.popitem()[1].close()
