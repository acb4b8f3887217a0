"""`--online replay`: the views of a store, and targets from the teacher itself, rounded as the store rounds them.

What the store leaves out of a step is put back, and nothing else changes: a run equals the one from the store, as far
as a teacher gives the same bits for the same crop in another batch.
"""

from dataclasses import dataclass

from caev2.errors import TeacherError
from caev2.extract.teachers.recorded import load_recorded_teacher
from caev2.extract.teachers.teacher import Teacher
from caev2.online.shown import ReplayedBoxes, ResizedCrops
from caev2.online.taught import AsStored, Lecture, TaughtInputs
from caev2.pretrain.identity import identify
from caev2.pretrain.learning.lesson import Lesson, store_lesson
from caev2.pretrain.recipes import PretrainRecipe
from caev2.pretrain.supply.batches import ShownCrops
from caev2.pretrain.together.ranks import Ranks
from caev2.progress import Progress
from caev2.store.images import ImageSource, Place, open_images
from caev2.store.manifest import TargetSpec
from caev2.store.pixels.crops import Crops
from caev2.store.pixels.replay import ViewReplay, open_crops
from caev2.store.reader import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A store's lesson with a live teacher; `caev2.pretrain.run.teach` calls it."""

    store: Store
    recipe: PretrainRecipe
    images: ImageSource | Place | None = None
    """What the store was extracted from; not needed where it keeps its crops, unless the teacher saw boxes."""
    teacher: Teacher | str | None = None
    """The store's own, or a name under which its weights are looked for first; none: it is looked for by name."""

    def __call__(self, *, device: str, ranks: Ranks, progress: Progress) -> Lesson:
        """The lesson of one rank.

        Raises:
            StoreMismatch: The recipe does not fit the store.
            SourceError: Images are needed, and not given or missing.
            TeacherError: The store's teacher is not found.
        """
        stored = store_lesson(
            self.store, self.recipe, images=self.images, device=device, ranks=ranks, progress=progress
        )
        recipe, spec = stored.recipe, self.store.manifest.spec
        target = spec.targets[recipe.target]
        crops = self._crops(stored.batches.crops, target, jittered=bool(recipe.student_jitter))
        teacher = self._find_teacher(target, device)
        lecture = Lecture(teacher=teacher, tap=target.tap, batch=spec.teacher_batch)
        return stored.taught(
            crops=crops,
            inputs=TaughtInputs(lecture, AsStored(self.store, recipe.target, device)),
            identify=lambda start: identify(recipe, self.store, stored.precision, start, online="replay"),
        )

    def _crops(self, crops: Crops | ShownCrops, target: TargetSpec, *, jittered: bool) -> Crops | ShownCrops:
        """The student's crops, and what else the teacher has to be shown."""
        assert isinstance(crops, Crops), "as a store's are"
        views, teacher_px = self.store.manifest.spec.views, target.teacher["image_px"]
        if teacher_px == views.size_px or target.from_crops:
            plain = teacher_px == views.size_px and not jittered
            return crops if plain else ResizedCrops(crops, teacher_px, views.interpolation)
        if isinstance(crops, ViewReplay):
            return ReplayedBoxes(crops, teacher_px)
        images = self.images
        source = images if images is None or isinstance(images, ImageSource) else open_images(images)
        boxes = open_crops(self.store, source, boxes=True)
        assert isinstance(boxes, ViewReplay), "as boxes take images"
        return ReplayedBoxes(boxes, teacher_px)

    def _find_teacher(self, target: TargetSpec, device: str) -> Teacher:
        recorded, given = target.teacher, self.teacher
        if isinstance(given, Teacher):
            if given.description.sha256 != recorded["sha256"]:
                raise TeacherError(
                    f"{self.store.path} was made by {recorded['name']} (sha256 {recorded['sha256'][:12]}...), and "
                    f"{given.description.name} ({given.description.sha256[:12]}...) was given. Give that one."
                )
            return given
        try:
            names = () if given is None else (given,)
            return load_recorded_teacher(recorded, device, names, precision=recorded["precision"])
        except TeacherError as problem:
            raise TeacherError(
                f"The teacher of {self.store.path} is not found: {str(problem).rstrip('.')}. Say where its weights "
                "are: --teacher openclip:ARCHITECTURE@PATH, or another name."
            ) from None
