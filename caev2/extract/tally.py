"""How far an extraction has come, whoever computes: progress, the time to go, and the limit on failures."""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

from caev2.errors import SourceError
from caev2.extract.units import ImageDone
from caev2.progress import Progress

_LEAST_SECONDS = 2.0  # work of a moment needs no estimate


class Tally:
    """Counts what is done and stops the run when too many images cannot be used.

    Args:
        images: Of the whole source, undecodable ones included.
        max_failed: Share of them that may fail.
        failed: Key and reason of those that failed in units that are done already.
        rows: That are to be computed now.
        batch: Rows in a batch, after the first of which the time is taken: it warms everything up.
        progress: Who is told.
    """

    def __init__(
        self, *, images: int, max_failed: float, failed: Mapping[str, str], rows: int, batch: int, progress: Progress
    ):
        self.rows_computed = 0
        self._images, self._max_failed, self._failed = images, max_failed, dict(failed)
        self._rows, self._batch, self._progress = rows, batch, progress
        self._through: Counter[int] = Counter()
        self._warm: tuple[int, float] | None = None
        self._told = False
        self._lock = threading.Lock()

    def image_done(self, done: ImageDone) -> None:
        """Take notice of an image that is through; may be called in any thread.

        Raises:
            SourceError: Too many images cannot be used.
        """
        with self._lock:
            self._count(done)

    def _count(self, done: ImageDone) -> None:
        self.rows_computed += done.computed
        self._through[done.block] += done.views
        if done.reason is not None:
            self._failed[done.key] = done.reason
            self.refuse_too_many(self._failed)
        self._progress.advance(done.views)
        self._tell_time_once()

    def block_finished(self, block: int, rows: int) -> None:
        """Take notice that a block is done, though not all was told of it."""
        self._progress.advance(rows - self._through[block])
        self._through[block] = rows

    def block_lost(self, block: int) -> None:
        """Take back what was told of a block whose worker died before it was finished."""
        self._progress.advance(-self._through.pop(block, 0))

    def refuse_too_many(self, failed: Mapping[str, str]) -> None:
        """Check the number of images that cannot be used.

        Raises:
            SourceError: There are more than the recipe allows.
        """
        if len(failed) > self._max_failed * self._images:
            listed = "; ".join(f"{key}: {reason}" for key, reason in list(failed.items())[:3])
            raise SourceError(
                f"{len(failed)} of {self._images} images cannot be used, more than the allowed share of "
                f"{self._max_failed:g}. The first: {listed}. Repair or remove them, or allow more with "
                "--set max_failed=0.5."
            )

    def _tell_time_once(self) -> None:
        """Say once how long the extraction will take."""
        if self._told or self.rows_computed < self._batch:
            return
        if self._warm is None:
            self._warm = self.rows_computed, time.monotonic()
            return
        rows, seconds = self.rows_computed - self._warm[0], time.monotonic() - self._warm[1]
        if rows < self._batch or seconds < _LEAST_SECONDS:
            return
        self._told = True
        left = timedelta(seconds=max(0, round((self._rows - self.rows_computed) * seconds / rows)))
        self._progress.say(f"extract: about {left} to go, at {rows / seconds:,.1f} rows/s so far")
