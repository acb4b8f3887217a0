"""How fast a run is, and what it waits for."""

import contextlib
import time
from collections.abc import Callable, Iterator

from caev2.pretrain.foresight.cost import mfu
from caev2.pretrain.supply.batches import Batch


class Meter:
    """Images per second, how much of the time was spent waiting for batches, and what share of the peak is used.

    The first step does not count: with it, workers start and steps are compiled.

    Args:
        batch_size: Images of a step, over all devices.
        gmac: Billion multiply-adds of one image's forward pass; none: no share is told.
        peak_flops: Operations a second that all devices can do together; none: that is not known.
        clock: Seconds since any moment.
    """

    def __init__(
        self,
        batch_size: int,
        *,
        gmac: float | None = None,
        peak_flops: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._batch_size, self._gmac, self._peak_flops, self._clock = batch_size, gmac, peak_flops, clock
        self._steps, self._waited, self._since = 0, 0.0, clock()
        self._is_warm = False

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches as they leave their loader, timed: what comes later may wait for the device."""
        while True:
            begun = self._clock()
            batch = next(batches, None)
            self._waited += self._clock() - begun
            if batch is None:
                return
            yield batch

    def count_step(self) -> None:
        """Another step was begun."""
        self._steps += 1
        if not self._is_warm:
            self._is_warm = True
            self._steps, self._waited, self._since = 0, 0.0, self._clock()

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Time for something else than training, which does not count."""
        begun = self._clock()
        yield
        self._since += self._clock() - begun

    def read(self) -> dict[str, float]:
        """The figures since they were last read; nothing if no step counts yet."""
        if not self._steps:
            return {}
        seconds = max(self._clock() - self._since, 1e-9)
        rate = self._steps * self._batch_size / seconds
        figures = {"images_per_s": round(rate, 1), "data_wait_percent": round(100 * self._waited / seconds, 1)}
        if self._gmac is not None and self._peak_flops is not None:
            figures["mfu_percent"] = round(100 * mfu(self._gmac, rate, self._peak_flops), 1)
        self._steps, self._waited, self._since = 0, 0.0, self._clock()
        return figures
