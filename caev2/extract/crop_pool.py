"""Crops handed from worker processes to this one through memory that both see, made once.

Sending a tensor through a queue makes, maps and frees a piece of shared memory for each image: for crops of 224 pixels
0.23 ms a view, of which copying into a place that is there already leaves a third.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import UInt8

from caev2.extract.prepare import Preparation, PreparedImage
from caev2.workers import in_order

_IMAGES_AHEAD = (
    64  # of all workers together: at 8 views of 224 pixels 77 MB, which the system's shared memory must hold
)


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
    ahead = max(2, min(16, _IMAGES_AHEAD // workers))
    pool = CropPool(workers * ahead + 2, len(preparation.chosen), preparation.crop_px)
    placed = in_order(pool.filler(preparation), pool.assign(images), workers=workers, ahead=ahead)
    yield from map(pool.take, placed)


class CropPool:
    """Places for the crops of some images.

    Args:
        places: How many images may be on their way at once.
        views: Crops of an image.
        size_px: Side of a crop.
    """

    def __init__(self, places: int, views: int, size_px: int):
        self._memory = torch.empty((places, views, size_px, size_px, 3), dtype=torch.uint8).share_memory_()
        self._free = deque(range(places))

    def assign(self, images: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Give each image a place; call it no further ahead than there are places."""
        for image in images:
            yield image, self._free.popleft()

    def filler(self, preparation: Preparation) -> "_Filler":
        """What a worker does with an image and its place."""
        return _Filler(preparation, self._memory)

    def take(self, placed: "_Placed") -> PreparedImage:
        """The image with crops of its own; its place is free again."""
        crops = self._memory[placed.place, : placed.views].clone()
        self._free.append(placed.place)
        return dataclasses.replace(placed.image, crops=crops)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A prepared image whose crops lie in a pool."""

    image: PreparedImage
    """Without crops."""
    place: int
    views: int


@dataclass(frozen=True, slots=True)
class _Filler:
    """Prepares an image and leaves its crops in a pool."""

    preparation: Preparation
    memory: UInt8[torch.Tensor, "place view size size 3"]

    def __call__(self, assigned: tuple[int, int]) -> _Placed:
        number, place = assigned
        image = self.preparation.prepare(number)
        self.memory[place, : len(image.crops)] = image.crops
        return _Placed(dataclasses.replace(image, crops=image.crops[:0].clone()), place, len(image.crops))
