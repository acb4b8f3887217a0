"""What an engine is to an extraction."""

import os
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from caev2.extract.job import Job
from caev2.extract.tally import Tally
from caev2.extract.teachers.teacher import Teacher
from caev2.progress import Progress
from caev2.store.writer import StoreWriter


@runtime_checkable  # so that the tests may check it as a type
class Engine(Protocol):
    """Whoever has units computed."""

    @property
    def device(self) -> str:
        """What the teacher computes on, which decides its precision where the recipe does not."""
        ...

    @property
    def own_device(self) -> str:
        """Where this process needs the teacher."""
        ...

    def workers(self, wanted: int | None) -> int:
        """Processes that decode and crop for each device; none wanted: as many as the machine has cores for."""
        ...

    def calibrate(self, job: Job, writer: StoreWriter, teacher: Teacher, progress: Progress) -> None:
        """Let the codec learn, unless it has.

        Raises:
            StoreError: It is not faithful enough to this teacher.
        """
        ...

    def compute(
        self,
        job: Job,
        writer: StoreWriter,
        teacher: Teacher,
        blocks: Sequence[int],
        tally: Tally,
        progress: Progress,
    ) -> None:
        """Have the units of some blocks computed.

        Args:
            job: What every process knows.
            writer: Of this process.
            teacher: On `own_device`.
            blocks: In the order in which they are best begun.
            tally: Told of each image.
            progress: Told what is worth saying.

        Raises:
            Caev2Error: A worker raised it, or died.
        """
        ...


def decode_workers(wanted: int | None, device: str, devices: int = 1) -> int:
    """Processes that decode and crop for one of some devices of this machine.

    A GPU gets its share of the cores, less one for the process that feeds it. A CPU gets all: whoever has nothing to do
    waits, whether that is a large teacher for crops or the decoders for a small one.
    """
    if wanted is not None:
        return wanted
    cores = len(os.sched_getaffinity(0)) // devices
    return max(1, cores if device == "cpu" else cores - 1)
