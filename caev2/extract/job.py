"""An extraction as every process that takes part in it knows it: data that can be sent to another machine."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from caev2.errors import OutputError
from caev2.extract.calibrate import calibrate
from caev2.extract.planning.plan import plan_store
from caev2.extract.recipes import ExtractRecipe
from caev2.extract.teachers.catalog import load_teacher
from caev2.extract.teachers.teacher import Precision, Teacher
from caev2.extract.units import Told, UnitComputer
from caev2.progress import Progress, Silent
from caev2.store.images import ImageSource
from caev2.store.manifest import FILE_NAME
from caev2.store.writer import StoreWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is extracted, from where to where."""

    source: ImageSource
    store: Path
    recipe: ExtractRecipe
    precision: Precision
    """What the teacher computes in."""
    workers: int
    """Processes that decode and crop for each device; 0: none but the one that computes."""
    threads: int
    """Of the teacher on a CPU: the last bits of its latents may depend on how many there are."""
    teacher: Teacher | None = None
    """Instead of the one that the recipe names."""
    tables_of: Path | None = None
    """A store whose codec's tables are used."""

    def load_teacher(self, device: str) -> Teacher:
        """The teacher, on a device.

        Raises:
            TeacherError: It cannot be loaded here.
        """
        if self.teacher is not None:
            return self.teacher
        recipe = self.recipe
        return load_teacher(recipe.teacher, device=device, precision=self.precision, image_px=recipe.teacher_px)

    def open_store(self, teacher: Teacher) -> StoreWriter:
        """A writer of the store, which is begun if it is not there."""
        return StoreWriter(self.store, plan_store(self.source, self.recipe, teacher), self.source.listing())

    def join_store(self, teacher: Teacher) -> StoreWriter:
        """A writer of a store that somebody else has begun.

        Raises:
            OutputError: It is not to be seen from here.
            StoreMismatch: This teacher is not the one it was begun with.
        """
        if not (self.store / FILE_NAME).exists():
            raise OutputError(
                f"{self.store} is not to be seen from a worker: it lies on a disk of the machine that began it. Choose "
                "a folder that all machines share."
            )
        return self.open_store(teacher)

    def calibrate(self, writer: StoreWriter, teacher: Teacher, device: str, progress: Progress) -> None:
        """Let the codec learn, unless it has."""
        calibrate(
            writer,
            self.source,
            self.recipe,
            teacher,
            tables_of=self.tables_of,
            device=device,
            workers=self.workers,
            progress=progress,
        )

    def compute(
        self,
        writer: StoreWriter,
        teacher: Teacher,
        device: str,
        blocks: Iterable[int],
        told: Told,
        progress: Progress | None = None,
    ) -> None:
        """Compute units; see `UnitComputer.compute`."""
        UnitComputer(
            writer=writer,
            source=self.source,
            recipe=self.recipe,
            teacher=teacher,
            device=device,
            workers=self.workers,
            told=told,
            progress=progress or Silent(),
        ).compute(blocks)
