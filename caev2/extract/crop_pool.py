"""Crops handed from worker processes to this one through memory that both see, made once.

Sending a tensor through a queue makes, maps and frees a piece of shared memory for each image: for crops of 224 pixels
0.23 ms a view, of which copying into a place that is there already leaves a third. A message costs about a millisecond
whatever is in it, so images with few views travel together.
"""

import dataclasses
import itertools
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from caev2.errors import ConfigError
from caev2.extract.prepare import Preparation, PreparedImage
from caev2.workers import SHARED, in_order

_VIEWS_AT_ONCE = 16
"""In one message, at least, if an image has fewer."""
_MESSAGES_AHEAD = 64
"""Of all workers together: at 16 views of 224 pixels 154 MB of the system's shared memory."""


def prepare_in_order(preparation: Preparation, images: Iterable[int], workers: int) -> Iterator[PreparedImage]:
    """Prepare images in the given order, ahead of their use if there are workers.

    Args:
        preparation: How.
        images: Their numbers; asked for as images are used.
        workers: Processes; 0: none but this one.

    Raises:
        SourceError: A file cannot be read.
        WorkerDied: A worker was killed.
    """
    if workers == 0:
        yield from map(preparation.prepare, images)
        return
    views = len(preparation.chosen)
    together = max(1, _VIEWS_AT_ONCE // views)
    ahead = _messages_ahead(workers, together * views * 3 * preparation.crop_px**2)
    pool = CropPool(workers * ahead + 2, together * views, preparation.crop_px)
    messages = in_order(pool.filler(preparation), pool.assign(images, together), workers=workers, ahead=ahead)
    for message in messages:
        yield from pool.take(message)


def _messages_ahead(workers: int, message_bytes: int) -> int:
    """How far each worker may be ahead: as far as helps, with half of the shared memory that is free.

    Raises:
        ConfigError: There is not enough even for one message ahead.
    """
    wanted = max(2, min(8, _MESSAGES_AHEAD // workers))
    free = _free_bytes() // 2
    fits = (free // message_bytes - 2) // workers
    if fits < 1:
        raise ConfigError(
            f"{workers} workers need {(workers + 2) * message_bytes / 1e6:.0f} MB of shared memory, and half of what "
            f"is free in {SHARED} is {free / 1e6:.0f} MB. Give it more (containers: --shm-size=1g), or decode in "
            "fewer processes: --set workers=1, or 0."
        )
    return min(wanted, fits)


def _free_bytes() -> int:
    return shutil.disk_usage(SHARED if SHARED.is_dir() else "/tmp").free  # another system has its own way


class CropPool:
    """Places for the crops of some messages.

    Args:
        places: How many messages may be on their way at once.
        views: Crops in a message, at most.
        size_px: Side of a crop.
    """

    def __init__(self, places: int, views: int, size_px: int):
        self._memory = torch.empty((places, views, size_px, size_px, 3), dtype=torch.uint8).share_memory_()
        self._free = deque(range(places))

    def assign(self, images: Iterable[int], together: int) -> Iterator[tuple[tuple[int, ...], int]]:
        """Give some images at a time a place; call it no further ahead than there are places."""
        images = iter(images)
        while some := tuple(itertools.islice(images, together)):
            yield some, self._free.popleft()

    def filler(self, preparation: Preparation) -> "_Filler":
        """What a worker does with images and their place."""
        return _Filler(preparation, self._memory)

    def take(self, message: "_Message") -> Iterator[PreparedImage]:
        """The images with crops of their own; their place is free again."""
        crops = self._memory[message.place, : sum(message.views)].clone()
        self._free.append(message.place)
        for image, own in zip(message.images, crops.split(list(message.views)), strict=True):
            yield dataclasses.replace(image, crops=own)


@dataclass(frozen=True, slots=True)
class _Message:
    """Prepared images whose crops lie in a pool, one after another."""

    images: Sequence[PreparedImage]
    """Without crops."""
    views: Sequence[int]
    """Crops of each."""
    place: int


@dataclass(frozen=True, slots=True)
class _Filler:
    """Prepares images and leaves their crops in a pool."""

    preparation: Preparation
    memory: UInt8[Tensor, "place view size size 3"]

    def __call__(self, assigned: tuple[tuple[int, ...], int]) -> _Message:
        numbers, place = assigned
        images, views, first = [], [], 0
        for number in numbers:
            image = self.preparation.prepare(number)
            count = len(image.crops)
            self.memory[place, first : first + count] = image.crops
            images.append(dataclasses.replace(image, crops=image.crops[:0].clone()))
            views.append(count)
            first += count
        return _Message(images, views, place)
