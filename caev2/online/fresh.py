"""`--online fresh`: new views every epoch and a live teacher, without a store: what training from one is compared with.

A view is a function of (seed, image key, number), as in a store, and epochs take their numbers in the order in which
they take the views of a store. So a run with `views` = K sees the very crops of a run from a store of K views; and one
that does not say, those of a store with a view for every epoch. Latents are not rounded.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

from caev2.errors import ConfigError, SourceError
from caev2.extract.recipes import ExtractRecipe
from caev2.extract.teachers.catalog import load_teacher
from caev2.extract.teachers.teacher import Teacher, TeacherDescription, default_precision
from caev2.online.fresh_crops import FreshBoxes, FreshCrops, images_without
from caev2.online.shown import ResizedCrops
from caev2.online.taught import AsComputed, Lecture, TaughtInputs
from caev2.pretrain.identity import RunIdentity, settled
from caev2.pretrain.learning.lesson import Lesson, precision_of, refuse_unequal_parts
from caev2.pretrain.plan import learning_rates, order_of
from caev2.pretrain.recipes import PretrainRecipe
from caev2.pretrain.supply.batches import Shard, ShownCrops, StepBatches
from caev2.pretrain.together.ranks import Ranks
from caev2.progress import Progress
from caev2.recipe import choose, to_mapping
from caev2.store.images import ImageSource, Place, open_images


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """A lesson from images and a live teacher; `caev2.pretrain.run.teach` calls it."""

    images: ImageSource | Place
    recipe: PretrainRecipe
    """Its `target` names a tap of the teacher, its `views` how many are drawn of each image; none: one an epoch."""
    views: ExtractRecipe
    """How views are drawn, what the teacher is shown of them, which teacher in which precision, in what batches."""
    teacher: Teacher | None = None
    """Instead of the one that `views` names."""
    left_out: tuple[str, ...] = ()
    """Keys of images that are not used. One that cannot be decoded and is not among them ends the run."""

    def __call__(self, *, device: str, ranks: Ranks, progress: Progress) -> Lesson:
        """The lesson of one rank.

        Raises:
            ConfigError: Recipe, views and teacher do not fit together.
            SourceError: There are no images, or they can be read in their order only.
            TeacherError: The teacher cannot be loaded.
        """
        self._refuse_misfits()
        source = self._open_source()
        refuse_unequal_parts(self.recipe, ranks)
        order = order_of(
            self.recipe,
            images_without(source, self.left_out),
            views=self.recipe.views or self.recipe.epochs,
            block_images=self.views.block_images,
            place=str(source.root),
        )
        learning_rates(self.recipe, order)  # refuses a warm-up that is too long
        teacher = self.teacher or self._load_teacher(device)
        tap, recipe = self._fit(teacher.description)
        precision = precision_of(recipe, device)
        return Lesson(
            recipe=recipe,
            precision=precision,
            device=device,
            batches=StepBatches(
                store=None,
                crops=self._crops(source, teacher.description.image_px),
                order=order,
                model=recipe.model,
                mask=recipe.mask,
                target=recipe.target,
                seed=recipe.seed,
                student_jitter=recipe.student_jitter,
                shard=Shard(ranks.index, ranks.count),
            ),
            inputs=TaughtInputs(Lecture(teacher=teacher, tap=tap, batch=self._teacher_batch), AsComputed()),
            form=None,
            identify=partial(self._identify, recipe, precision, source, teacher.description, tap),
        )

    def _refuse_misfits(self) -> None:
        size_px, image_px = self.views.views.size_px, self.recipe.model.image_px
        if size_px != image_px:
            raise ConfigError(
                f"The views are of {size_px} pixels, the recipe's student takes {image_px}. Choose other --views, or "
                f"--set model.image_px={size_px}."
            )
        if self.recipe.loss.target_norm == "whiten":
            raise ConfigError(
                "loss.target_norm is whiten, which takes the statistics of a store; --online fresh has none. Train "
                "from a store, or with --online replay."
            )

    def _open_source(self) -> ImageSource:
        source = self.images if isinstance(self.images, ImageSource) else open_images(self.images)
        if not source.seekable:
            raise SourceError(
                f"The images in {source.root} lie in a compressed tar, which can be read from its beginning only, and "
                "they are wanted in another order. Decompress it."
            )
        return source

    @property
    def _teacher_batch(self) -> int:
        """As in extraction, but no larger than the batch of all ranks: a function of settings that decide results."""
        return min(self.views.teacher_batch, self.recipe.batch_size)

    def _load_teacher(self, device: str) -> Teacher:
        views = self.views
        precision = views.precision or default_precision(device)
        return load_teacher(views.teacher, device=device, precision=precision, image_px=views.teacher_px)

    def _fit(self, teacher: TeacherDescription) -> tuple[str, PretrainRecipe]:
        """The tap, and the recipe with its head as wide as that."""
        model, target = self.recipe.model, self.recipe.target
        if teacher.tokens != model.patches + 1:
            raise ConfigError(
                f"{teacher.name} has {teacher.tokens - 1} patches in an image, the recipe's student {model.patches}. "
                "Choose a recipe with the teacher's grid, or a teacher_px in --views that gives it the student's."
            )
        tap = target if target in teacher.widths else target.replace("-", ":")
        width = choose(tap, teacher.widths, f"tap of {teacher.name}")
        return tap, dataclasses.replace(self.recipe, model=dataclasses.replace(model, target_width=width))

    def _crops(self, source: ImageSource, teacher_px: int) -> FreshCrops | ShownCrops:
        views = self.views.views
        crops = FreshCrops(source, views, self.views.crops)
        if teacher_px != views.size_px and not self.views.from_crops:
            return FreshBoxes(crops, teacher_px)
        plain = teacher_px == views.size_px and not self.recipe.student_jitter
        return crops if plain else ResizedCrops(crops, teacher_px, views.interpolation)

    def _identify(
        self,
        recipe: PretrainRecipe,
        precision: str,
        source: ImageSource,
        teacher: TeacherDescription,
        tap: str,
        start: str | None,
    ) -> RunIdentity:
        described: dict[str, Any] = to_mapping(teacher)
        width = described.pop("widths")[tap]
        return RunIdentity(
            recipe=settled(recipe, precision),
            store_fingerprint="",
            store_digest="",
            target={"teacher": described, "tap": tap, "tokens": teacher.tokens, "width": width},
            views=to_mapping(self.views.views),
            init_from=start,
            online="fresh",
            source={
                "digest": source.digest(),
                "left_out": sorted(set(self.left_out)),
                "crops": self.views.crops,
                "from_crops": self.views.from_crops,
                "block_images": self.views.block_images,
                "teacher_batch": self._teacher_batch,
            },
        )
