"""What a recipe means on a store: sizes, order of rows, learning rates, and how long it all is."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from caev2.errors import ConfigError, StoreMismatch
from caev2.pretrain.learning.schedule import CosineSchedule
from caev2.pretrain.recipes import PretrainRecipe
from caev2.pretrain.resume import newest_sound
from caev2.pretrain.student.model import CAEv2
from caev2.pretrain.supply.order import RowOrder
from caev2.store.reader import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainPlan:
    """What a run will do, known before it starts."""

    images: int
    """Valid images of the store."""
    views: int
    """Stored views that are used."""
    epochs: int
    steps_per_epoch: int
    steps: int
    parameters: int
    """Trained numbers."""
    resume_step: int
    """Where the run goes on, which is at its newest sound checkpoint; 0 for a new one."""


def plan(recipe: PretrainRecipe, store: Store, run: Path) -> PretrainPlan:
    """What a run will do; refuses what the run would refuse of recipe and store."""
    recipe = fit_recipe(recipe, store)
    order = row_order(recipe, store)
    learning_rates(recipe, order)
    with torch.device("meta"):
        model = CAEv2(recipe.model)
    checkpoint = newest_sound(run / "checkpoints")
    return PretrainPlan(
        images=len(store.valid_images),
        views=order.views,
        epochs=recipe.epochs,
        steps_per_epoch=order.steps_per_epoch,
        steps=order.total_steps,
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        resume_step=0 if checkpoint is None else checkpoint.step,
    )


def fit_recipe(recipe: PretrainRecipe, store: Store) -> PretrainRecipe:
    """The recipe with its head as wide as the store's target.

    Raises:
        StoreMismatch: Image size, number of patches, views or target do not fit the store.
    """
    spec = store.manifest.spec
    target = spec.targets[store.target(recipe.target)]
    if spec.views.size_px != recipe.model.image_px:
        raise StoreMismatch(
            f"{store.path} holds views of {spec.views.size_px} pixels, the recipe's student takes "
            f"{recipe.model.image_px}. Choose another recipe, or --set model.image_px={spec.views.size_px}."
        )
    if target.tokens != recipe.model.patches + 1:
        raise StoreMismatch(
            f"{store.path} has {target.tokens - 1} patches in an image, the recipe's student {recipe.model.patches}. "
            + _advise(spec.views.size_px, target.tokens - 1, recipe.target)
        )
    if recipe.views is not None and recipe.views > store.views:
        raise StoreMismatch(
            f"{store.path} has {store.views} views of each image, the recipe asks for {recipe.views}. "
            f"Give --set views={store.views}, or extract more."
        )
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, target_width=target.width))


def _advise(image_px: int, patches: int, target: str) -> str:
    """Which student has so many patches, if any."""
    grid = math.isqrt(patches)
    if grid * grid == patches and image_px % grid == 0:
        return f"Choose a recipe with the teacher's grid, or --set model.patch_px={image_px // grid}."
    return f"No student of {image_px} pixels has them. Choose another target than {target!r}, or extract it anew."


def row_order(recipe: PretrainRecipe, store: Store) -> RowOrder:
    """Which rows of a store each step trains on; see `order_of`."""
    spec, views = store.manifest.spec, recipe.views or store.views
    return order_of(recipe, store.valid_images, views=views, block_images=spec.block_images, place=str(store.path))


def order_of(
    recipe: PretrainRecipe, images: Int[np.ndarray, " image"], *, views: int, block_images: int, place: str
) -> RowOrder:
    """Which images each step trains on.

    Args:
        recipe: Batches, epochs, seed, ordering.
        images: Numbers of those that can be used.
        views: Of each image.
        block_images: Images of a block, for windows.
        place: Where they are, for a message.

    Raises:
        ConfigError: There are fewer images than a batch has.
    """
    if len(images) < recipe.batch_size:
        raise ConfigError(
            f"{place} has {len(images)} valid images, fewer than one batch of {recipe.batch_size}. "
            f"Give --set batch_size={max(1, len(images))} or less."
        )
    return RowOrder(
        rows=images,
        views=views,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        seed=recipe.seed,
        ordering=recipe.order,
        block_images=block_images,
        window_blocks=recipe.window_blocks,
    )


def learning_rates(recipe: PretrainRecipe, order: RowOrder) -> CosineSchedule:
    """The learning rate of each step.

    Raises:
        ConfigError: The warm-up is longer than the training.
    """
    return CosineSchedule(
        peak_lr=recipe.optimizer.lr,
        min_lr=recipe.optimizer.min_lr,
        warmup_steps=round(recipe.optimizer.warmup_epochs * order.steps_per_epoch),
        total_steps=order.total_steps,
    )
