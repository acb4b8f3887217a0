"""Which rows a step trains on: a pure function of the step, so that resuming takes nothing but its number."""

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from caev2.store.draws import Draws

Ordering = Literal["full", "window"]
"""`full`: a permutation of all rows; `window`: rows shuffled within a window of shuffled blocks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowOrder:
    """Every epoch a fresh order of all valid rows, cut into whole batches.

    `full` is a permutation of them: any row may be next, which a local disk bears. `window` shuffles the blocks of
    the store, and then the rows of so many blocks at a time: whole files are read one after another, as remote stores
    and tars want it, and batches are nearly as mixed.

    In one epoch every image uses the same view, so that whole files of the store are read. The views come in
    cycles: each cycle of as many epochs as there are views uses every view once, in a permutation of its own.
    """

    rows: Int[np.ndarray, " row"]
    """The valid rows."""
    views: int
    """Stored views that are used."""
    batch_size: int
    """Rows of a step; what is left over at the end of an epoch waits for the next one's permutation."""
    epochs: int
    """Passes over the rows."""
    seed: int
    """The order is a function of it."""
    ordering: Ordering = "full"
    block_images: int = 1
    """Images of a block of the store."""
    window_blocks: int = 1
    """Blocks of a window."""

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of an epoch."""
        return len(self.rows) // self.batch_size

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def steps_of_window(self) -> int:
        """Steps after which other files are read, one at least: how far to look ahead for what has to be fetched."""
        return 1 if self.ordering == "full" else -(-self.window_blocks * self.block_images // self.batch_size)

    def epoch_of(self, step: int) -> int:
        """The epoch that a step is in, counted from 0."""
        return step // self.steps_per_epoch

    def view_of(self, step: int) -> int:
        """The view that every image uses in a step."""
        cycle, place = divmod(self.epoch_of(step), self.views)
        return int(Draws("views", self.seed, cycle).permutation(self.views)[place])

    def rows_of(self, step: int) -> Int[np.ndarray, " row"]:
        """The rows of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = self._order_of(epoch)
        return self.rows[order[place * self.batch_size : (place + 1) * self.batch_size]]

    def _order_of(self, epoch: int) -> Int[np.ndarray, " row"]:
        """Places in `rows`, in the order of an epoch."""
        count = len(self.rows)
        if self.ordering == "full":
            return _epoch_order(self.seed, epoch, count)
        return _window_order(self, epoch)


@functools.lru_cache(maxsize=2)  # a permutation of a million rows takes a tenth of a second; a step needs one slice
def _epoch_order(seed: int, epoch: int, count: int) -> Int[np.ndarray, " row"]:
    order = Draws("rows", seed, epoch).permutation(count)
    order.setflags(write=False)
    return order


@functools.lru_cache(maxsize=2)
def _window_order(order: RowOrder, epoch: int) -> Int[np.ndarray, " row"]:
    """Places of the rows: blocks in a random order, then shuffled within windows of so many blocks."""
    blocks = order.rows // order.block_images  # ascending, as the rows are
    known = np.unique(blocks)
    shuffled = known[Draws("blocks", order.seed, epoch).permutation(len(known))]
    first, stop = np.searchsorted(blocks, shuffled), np.searchsorted(blocks, shuffled, side="right")
    windows = []
    for number, begin in enumerate(range(0, len(known), order.window_blocks)):
        window = slice(begin, begin + order.window_blocks)
        places = np.concatenate([np.arange(*pair) for pair in zip(first[window], stop[window], strict=True)])
        windows.append(places[Draws("window", order.seed, epoch, number).permutation(len(places))])
    places = np.concatenate(windows)
    places.setflags(write=False)
    return places
