"""Batches handed from worker processes to this one in shared memory that is made once.

Fresh shared memory is handed out by the system page by page, on both sides, and its file travels over a connection: a
third of what a batch of JPEG crops takes. Here a worker is told a place, fills it and names it.
"""

import dataclasses
import itertools
import shutil
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from caev2.pretrain.supply.batch_memory import Layout
from caev2.pretrain.supply.batches import Batch, StepBatches, batch_of_tensors
from caev2.workers import SHARED

_SPARE = 4
"""Places more than batches on their way: for the one at work, the one before it, and who keeps them a little longer."""
_POOLS: "weakref.WeakValueDictionary[int, BatchPool]" = weakref.WeakValueDictionary()
"""Of this process, by number: whoever copies a batch into page-locked memory is given that and a place."""
_numbers = itertools.count()


class BatchPool:
    """Places for batches; one is free again when nobody holds a tensor in it any more.

    Args:
        batches: What the places are filled with.
        on_their_way: Batches that workers have ready or at work, at most.
    """

    def __init__(self, batches: StepBatches, on_their_way: int):
        self._batches, self._layout = batches, batches.layout
        places = _affordable(on_their_way + _SPARE, self._layout.bytes)
        self._memory = torch.empty((places, self._layout.bytes), dtype=torch.uint8).share_memory_()
        self._free = deque(range(places))
        self._number = next(_numbers)
        _POOLS[self._number] = self

    def assign(self, steps: Iterable[int]) -> Iterator["Assigned"]:
        """Give each step a place, as it is asked for; none if all are taken."""
        for step in steps:
            yield step, self._free.popleft() if self._free else None

    def filler(self) -> "Filler":
        """What a worker does with a step and its place."""
        return Filler(self._batches, self._layout, self._memory, self._number)

    def memory_at(self, place: int) -> UInt8[Tensor, " byte"]:
        """The bytes of a place."""
        return self._memory[place]

    def unpack(self, packed: "PackedBatch") -> Batch:
        """The batch, in the memory that it came in."""
        memory = packed.memory
        if packed.place is not None:
            if memory is None:
                memory = self._lend(packed.place)
            else:  # copied meanwhile
                self._free.append(packed.place)
        assert memory is not None, "a batch without a place has memory of its own"
        tensors = self._layout.tensors(memory)
        return batch_of_tensors(tensors, packed.step, packed.epoch, packed.view, packed.drifted)

    def _lend(self, place: int) -> UInt8[Tensor, " byte"]:
        piece = self.memory_at(place).numpy()
        weakref.finalize(piece, self._free.append, place).atexit = False
        return torch.from_numpy(piece)  # which, and every tensor cut out of it, keeps the piece


Assigned = tuple[int, int | None]
"""A step, and the place for its batch; none: it gets memory of its own."""


def _affordable(places: int, place_bytes: int) -> int:
    """As many as half of the shared memory that is free allows; batches without a place take theirs one by one."""
    if not SHARED.is_dir():
        return places
    return min(places, shutil.disk_usage(SHARED).free // 2 // place_bytes)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """A batch on its way from a worker."""

    pool: int
    place: int | None
    """Where in the pool it is; none: not there."""
    memory: UInt8[Tensor, " byte"] | None
    """Its own memory, if it has any."""
    step: int
    epoch: int
    view: int
    drifted: str | None

    def pin_memory(self) -> "PackedBatch":
        """The same in page-locked memory; see `Batch.pin_memory`."""
        memory = self.memory
        if memory is None:
            assert self.place is not None, "a batch has memory or a place"
            memory = _POOLS[self.pool].memory_at(self.place)
        return dataclasses.replace(self, memory=memory.pin_memory())


@dataclass(frozen=True, slots=True)
class Filler:
    """Makes the batches of steps in their places."""

    batches: StepBatches
    layout: Layout
    memory: UInt8[Tensor, "place byte"]
    pool: int

    def __call__(self, assigned: Assigned) -> PackedBatch:
        """The batch of a step, filled in."""
        step, place = assigned
        own = self.layout.new_shared() if place is None else None
        batch = self.batches.fill(step, self.layout.tensors(self.memory[place] if own is None else own))
        return PackedBatch(self.pool, place, own, step, batch.epoch, batch.view, batch.drifted)
