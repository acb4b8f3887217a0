"""The engine that is this very process, with one device."""

from collections.abc import Sequence
from dataclasses import dataclass

from caev2.extract.engines.engine import decode_workers
from caev2.extract.job import Job
from caev2.extract.tally import Tally
from caev2.extract.teachers.teacher import Teacher
from caev2.progress import Progress
from caev2.store.writer import StoreWriter


@dataclass(frozen=True, slots=True)
class OneDevice:
    """Computes here; see `engine.Engine`."""

    device: str = "cpu"

    @property
    def own_device(self) -> str:
        """The same one."""
        return self.device

    def workers(self, wanted: int | None) -> int:
        """See `engine.decode_workers`."""
        return decode_workers(wanted, self.device)

    def calibrate(self, job: Job, writer: StoreWriter, teacher: Teacher, progress: Progress) -> None:
        """Here."""
        job.calibrate(writer, teacher, self.device, progress)

    def compute(
        self,
        job: Job,
        writer: StoreWriter,
        teacher: Teacher,
        blocks: Sequence[int],
        tally: Tally,
        progress: Progress,
    ) -> None:
        """Here, one unit after the other."""
        job.compute(writer, teacher, self.device, blocks, tally.image_done, progress)
