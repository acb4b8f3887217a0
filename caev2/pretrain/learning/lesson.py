"""What a run learns: batches, what becomes of them on the device, and the words for it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from caev2.errors import ConfigError
from caev2.pretrain.identity import RunIdentity, identify
from caev2.pretrain.learning.decode import TargetDecoder
from caev2.pretrain.learning.step import Inputs, StoredInputs
from caev2.pretrain.learning.target_norm import TargetForm, fit_whitening
from caev2.pretrain.plan import fit_recipe, learning_rates, row_order
from caev2.pretrain.recipes import PretrainRecipe
from caev2.pretrain.supply.batches import Shard, ShownCrops, StepBatches
from caev2.pretrain.supply.order import RowOrder
from caev2.pretrain.together.ranks import Ranks
from caev2.progress import Progress
from caev2.store.images import ImageSource, Place, open_images
from caev2.store.pixels.crops import Crops
from caev2.store.pixels.replay import open_crops
from caev2.store.reader import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What is learnt: batches, what becomes of them on the device, and the words for it."""

    recipe: PretrainRecipe
    """With its head as wide as the target."""
    precision: str
    device: str
    batches: StepBatches
    inputs: Inputs
    form: TargetForm | None
    """What is done to targets; none: what the recipe says needs no statistics."""
    identify: Callable[[str | None], RunIdentity]
    """Who a run is that starts from weights of this digest; none: from fresh ones."""

    def taught(
        self, *, crops: Crops | ShownCrops, inputs: Inputs, identify: Callable[[str | None], RunIdentity]
    ) -> "Lesson":
        """The same lesson with targets that a live teacher makes, and not the store."""
        batches = dataclasses.replace(self.batches, store=None, crops=crops)
        return dataclasses.replace(self, batches=batches, inputs=inputs, identify=identify)


@runtime_checkable  # so that the tests may check it as a type
class MakeLesson(Protocol):
    """Whoever makes the lesson of a rank."""

    def __call__(self, *, device: str, ranks: Ranks, progress: Progress) -> Lesson:
        """The lesson, before the ranks have met."""
        ...


def store_lesson(
    store: Store,
    recipe: PretrainRecipe,
    *,
    images: ImageSource | Place | None,
    device: str,
    ranks: Ranks,
    progress: Progress,
) -> Lesson:
    """What a recipe learns from a store; raises what `pretrain` does about the two."""
    recipe = fit_recipe(recipe, store)
    precision = precision_of(recipe, device)
    order = row_order(recipe, store)
    if store.is_remote and recipe.order == "full":
        progress.warn(
            f"{store.path} lies at a URL and is read in full order, which wants all its files at once. Unless the "
            "cache holds a whole view, files are fetched over and over: --set order=window reads one after another."
        )
    learning_rates(recipe, order)  # refuses a warm-up that is too long
    decoder = TargetDecoder(store.decode_plan(recipe.target), tokens=recipe.model.patches + 1)
    form = None
    if recipe.loss.target_norm == "whiten":
        form = TargetForm("whiten", fit_whitening(store, recipe.target, decoder)).to(device)
    return Lesson(
        recipe=recipe,
        precision=precision,
        device=device,
        batches=_batches(recipe, store, images, order, ranks),
        inputs=StoredInputs(decoder.to(device)),
        form=form,
        identify=lambda start: identify(recipe, store, precision, start),
    )


def _batches(
    recipe: PretrainRecipe, store: Store, images: ImageSource | Place | None, order: RowOrder, ranks: Ranks
) -> StepBatches:
    refuse_unequal_parts(recipe, ranks)
    keeps_crops = store.manifest.spec.crops is not None
    source = None if keeps_crops or images is None else images
    return StepBatches(
        store=store,
        crops=open_crops(store, source if source is None or isinstance(source, ImageSource) else open_images(source)),
        order=order,
        model=recipe.model,
        mask=recipe.mask,
        target=recipe.target,
        seed=recipe.seed,
        student_jitter=recipe.student_jitter,
        shard=Shard(ranks.index, ranks.count),
    )


def precision_of(recipe: PretrainRecipe, device: str) -> str:
    """What the student computes in: bf16 on GPUs that know it, unless the recipe says."""
    knows = device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
    return recipe.precision or ("bf16" if knows else "fp32")


def refuse_unequal_parts(recipe: PretrainRecipe, ranks: Ranks) -> None:
    """Check that every rank gets as many images as the others, in each part of a batch.

    Raises:
        ConfigError: The batch is not cut so.
    """
    if recipe.batch_size % (ranks.count * recipe.accumulate):
        raise ConfigError(
            f"A batch of {recipe.batch_size} images is not cut into {ranks.count} ranks x {recipe.accumulate} equal "
            "parts. Give a --set batch_size or accumulate that fits."
        )
