"""Which residual branches drop path keeps: rates by depth, bits by (seed, epoch, step, row).

Every block has two branches, attention then MLP; the encoder's blocks come first, then the regressor's.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Int

from caev2.store.streams import RowStreams


def drop_path_rates(depth: int, drop_path: float) -> tuple[float, ...]:
    """The probability of skipping each of the 2 × `depth` branches.

    It rises linearly from 0 in the first block to `drop_path` in the last; a single block is never skipped.
    """
    return tuple(float(rate) for rate in np.linspace(0.0, drop_path, depth) for _ in range(2))


def keep_bits(
    seed: int, epoch: int, step: int, rows: Int[np.ndarray, " image"] | Iterable[int], rates: Sequence[float]
) -> Bool[np.ndarray, "branch image"]:
    """Whether each branch is kept for each row; a row's bits depend on no other row of the batch."""
    words = RowStreams("drop path", seed, epoch, step).words(rows, len(rates))
    return np.asarray(rates)[:, None] <= ((words >> np.uint64(11)).T * 2.0**-53)
