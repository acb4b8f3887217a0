"""One fine-tuning, settled: model, batches, schedule, judging, and what it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from caev2.errors import ConfigError
from caev2.eval.checks import check_several_classes
from caev2.eval.finetuning.augmentation import check_groups, train_transform
from caev2.eval.finetuning.batches import Augmenting, TunedBatches, order_images
from caev2.eval.finetuning.identity import TuneIdentity
from caev2.eval.finetuning.judging import Judging
from caev2.eval.finetuning.model import Backbone, FineTuner
from caev2.eval.finetuning.recipes import FinetuneRecipe
from caev2.eval.finetuning.starts import Start
from caev2.eval.parts import check_seekable
from caev2.eval.run import RESIZE_RATIO
from caev2.pretrain.learning.schedule import CosineSchedule
from caev2.pretrain.student.encoder import Encoder
from caev2.pretrain.supply.loading import cores
from caev2.pretrain.supply.order import RowOrder
from caev2.pretrain.together.ranks import Ranks
from caev2.pretrain.weights.tensor_file import digest_tensors
from caev2.recipe import to_mapping
from caev2.store.images import ImageSource
from caev2.store.pixels.decode import Orientation


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneJob:
    """All that is known before a step is done."""

    start: Start
    out: Path
    recipe: FinetuneRecipe
    identity: TuneIdentity
    backbone: Backbone
    model: FineTuner
    batches: TunedBatches
    judging: Judging
    schedule: CosineSchedule
    train: ImageSource


def prepare(
    start: Start,
    train: ImageSource,
    val: ImageSource,
    out: Path,
    recipe: FinetuneRecipe,
    *,
    device: str,
    orientation: Orientation,
    ranks: Ranks,
) -> TuneJob:
    """Settle everything, and refuse what cannot be done; weights are loaded, and no image is read.

    Raises:
        SourceError: The images cannot be used for this.
        ConfigError: The recipe does not fit the images or the ranks.
        Caev2Error: The weights cannot be loaded.
    """
    _refuse_hopeless(train, recipe, ranks)
    order = order_images(len(train), batch_size=recipe.batch_size, epochs=recipe.epochs, seed=recipe.seed)
    schedule = _schedule(recipe, order)
    backbone = start.open(recipe.model)
    model = FineTuner(backbone, len(train.classes), head_scale=recipe.model.head_scale, seed=recipe.seed)
    if recipe.recompute_activations and isinstance(model.encoder, Encoder):
        model.encoder.recompute = True
    size_px, precision = backbone.image_px, recipe.precision or ("bf16" if device.startswith("cuda") else "fp32")
    train_transform(recipe.augmentation, size_px, backbone.mean, backbone.std)  # refuses names that timm does not know
    shown: dict[str, Any] = {"mean": backbone.mean, "std": backbone.std, "size_px": size_px, "orientation": orientation}
    augmenting = Augmenting(source=train, settings=recipe.augmentation, seed=recipe.seed, **shown)
    judging = Judging(
        source=val,
        resize_px=_short_side(recipe.resize_px, size_px),
        device=device,
        bf16=precision == "bf16",
        workers=_count_workers(recipe.workers, device, ranks),
        ranks=ranks,
        **shown,
    )
    identity = TuneIdentity(
        start={"role": start.role, "digest": digest_tensors(model.state_dict(), {})},
        recipe={**to_mapping(recipe, result_only=True), "precision": precision},
        images={"train": train.digest(), "val": val.digest(), "orientation": orientation},
    )
    return TuneJob(
        start=start,
        out=out,
        recipe=recipe,
        identity=identity,
        backbone=backbone,
        model=model.to(device),
        batches=TunedBatches(augmenting=augmenting, order=order, rates=backbone.rates, ranks=ranks),
        judging=judging,
        schedule=schedule,
        train=train,
    )


def _schedule(recipe: FinetuneRecipe, order: RowOrder) -> CosineSchedule:
    """The learning rate of the head at each step.

    Raises:
        ConfigError: The warm-up is longer than the training.
    """
    return CosineSchedule(
        peak_lr=recipe.optimizer.lr,
        min_lr=recipe.optimizer.min_lr,
        warmup_steps=round(recipe.optimizer.warmup_epochs * order.steps_per_epoch),
        total_steps=order.total_steps,
    )


def _short_side(wanted: int | None, size_px: int) -> int:
    """Of an image that is judged.

    Raises:
        ConfigError: The crop would reach beyond the image.
    """
    if wanted is not None and wanted < size_px:
        raise ConfigError(
            f"Images whose short side is {wanted} pixels have no crop of {size_px}. Give --set resize_px={size_px} or "
            "more, or none for 8/7 of it."
        )
    return wanted or round(size_px * RESIZE_RATIO)


def _count_workers(wanted: int | None, device: str, ranks: Ranks) -> int:
    """On a CPU a worker takes from the step what it gives to it."""
    if wanted is not None:
        return wanted
    return max(1, cores() // ranks.per_machine) if device.startswith("cuda") else 0


def _refuse_hopeless(train: ImageSource, recipe: FinetuneRecipe, ranks: Ranks) -> None:
    """Refuse what no weights could help, before they are loaded."""
    check_several_classes(torch.tensor(train.labels), "train")
    check_groups(recipe.mix, recipe.batch_size, ranks.count)
    if (share := recipe.batch_size // ranks.count) % recipe.accumulate:
        raise ConfigError(
            f"The {share} images that a device takes of a batch are not cut into {recipe.accumulate} equal parts. "
            "Give --set accumulate to a divisor."
        )
    check_seekable(train)
