"""Open files, no more than a process may have; the one opened longest ago makes room."""

import contextlib
import os
import resource
import weakref
from collections.abc import Callable, Sequence

_MOST = 8192  # one view of ImageNet-1k has 2,503 shards
_MOST_COPIES = 64  # a copy that the cache has removed takes space as long as it is open


def most_open(*, copies: bool) -> int:
    """How many files a reader keeps open: half of what the process may open, which others need too.

    Args:
        copies: Whether they are copies in a cache.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)[0], _MOST_COPIES if copies else _MOST
    return most if allowed == resource.RLIM_INFINITY else max(1, min(most, allowed // 2))


def allow_many() -> None:
    """Let this process and its children open as many files as the system lets it, where less was set.

    For commands only: shells set 1,024 for the sake of programs that watch files with `select`, which none of ours do.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MOST if most == resource.RLIM_INFINITY else min(most, 2 * _MOST)
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


Place = tuple[str, int, int]
"""Kind, view and block of what a file holds."""


class OpenFiles:
    """Descriptors of the files of a store, closed with it.

    Args:
        copies: Whether they are copies in a cache.
    """

    def __init__(self, *, copies: bool):
        self._copies = copies
        self._descriptors: dict[Place, int] = {}
        weakref.finalize(self, _close_all, self._descriptors)

    @property
    def most(self) -> int:
        """How many are open at once."""
        return most_open(copies=self._copies)

    def __len__(self) -> int:
        return len(self._descriptors)

    def of(self, places: Sequence[Place], open_file: Callable[[Place], int]) -> list[int]:
        """A descriptor for each of at most `most` places; valid until the next call.

        Args:
            places: What is wanted.
            open_file: Opens one that is not open, and checks it.
        """
        missing = [place for place in dict.fromkeys(places) if place not in self._descriptors]
        if missing:
            self._make_room(len(missing), set(places))
            for place in missing:
                self._descriptors[place] = open_file(place)
        return [self._descriptors[place] for place in places]

    def _make_room(self, count: int, wanted: set[Place]) -> None:
        spare = [place for place in self._descriptors if place not in wanted]
        for place in spare[: max(0, len(self._descriptors) + count - self.most)]:
            os.close(self._descriptors.pop(place))

    def close(self) -> None:
        """Close all of them."""
        _close_all(self._descriptors)


def _close_all(descriptors: dict[Place, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)
    descriptors.clear()
