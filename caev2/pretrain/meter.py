"""How fast a run is, and what it waits for."""

import time
from collections.abc import Iterator

from caev2.pretrain.batches import Batch


class Meter:
    """Images per second, and how much of the time was spent waiting for batches."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._steps, self._waited, self._since = 0, 0.0, time.perf_counter()

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, timed."""
        while True:
            begun = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - begun
            if batch is None:
                return
            self._steps += 1
            yield batch

    def read(self) -> dict[str, float]:
        """The figures since they were last read."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        figures = {
            "images_per_s": round(self._steps * self._batch_size / seconds, 1),
            "data_wait_percent": round(100 * self._waited / seconds, 1),
        }
        self._steps, self._waited, self._since = 0, 0.0, time.perf_counter()
        return figures
