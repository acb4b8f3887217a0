"""Which rows a step trains on: a pure function of the step, so that resuming takes nothing but its number."""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from caev2.store.draws import Draws


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowOrder:
    """The `full` order: every epoch a fresh permutation of all valid rows, cut into whole batches.

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

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of an epoch."""
        return len(self.rows) // self.batch_size

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.steps_per_epoch

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
        order = _epoch_order(self.seed, epoch, len(self.rows))
        return self.rows[order[place * self.batch_size : (place + 1) * self.batch_size]]


@functools.lru_cache(maxsize=2)  # a permutation of a million rows takes a tenth of a second; a step needs one slice
def _epoch_order(seed: int, epoch: int, count: int) -> Int[np.ndarray, " row"]:
    order = Draws("rows", seed, epoch).permutation(count)
    order.setflags(write=False)
    return order
