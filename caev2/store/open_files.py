"""Open files, no more than a process may have; the one opened longest ago makes room."""

import os
import resource
from collections.abc import Callable, Sequence

_MOST = 8192  # one view of ImageNet-1k has 2,503 shards


def most_open() -> int:
    """How many files a reader keeps open: half of what the process may open, which others need too."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST if allowed == resource.RLIM_INFINITY else max(1, min(_MOST, allowed // 2))


Place = tuple[str, int, int]
"""Kind, view and block of what a file holds."""


class OpenFiles:
    """Descriptors of the files of a store.

    Args:
        open_file: Opens one, and checks it.
    """

    def __init__(self, open_file: Callable[[Place], int]):
        self._open_file = open_file
        self._descriptors: dict[Place, int] = {}

    def __len__(self) -> int:
        return len(self._descriptors)

    def of(self, places: Sequence[Place]) -> list[int]:
        """A descriptor for each of at most `most_open` places; valid until the next call."""
        missing = [place for place in dict.fromkeys(places) if place not in self._descriptors]
        if missing:
            self._make_room(len(missing), set(places))
            for place in missing:
                self._descriptors[place] = self._open_file(place)
        return [self._descriptors[place] for place in places]

    def _make_room(self, count: int, wanted: set[Place]) -> None:
        spare = [place for place in self._descriptors if place not in wanted]
        for place in spare[: max(0, len(self._descriptors) + count - most_open())]:
            os.close(self._descriptors.pop(place))

    def close(self) -> None:
        """Close all of them."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
