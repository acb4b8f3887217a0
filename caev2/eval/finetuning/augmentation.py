"""Augmented images and mixed batches, each a function of a seed and its number.

timm draws from the global generators of Python, numpy and torch. They are given a start for each image, or each batch,
and put back as they were: so an epoch that was interrupted goes on with the very same images, on any number of workers
and ranks. Another version of these libraries may draw otherwise.
"""

import contextlib
import functools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from timm.data.mixup import Mixup, mixup_target
from timm.data.transforms_factory import create_transform
from torch import Tensor

from caev2.errors import ConfigError
from caev2.eval.finetuning.model import Channels
from caev2.eval.finetuning.recipes import AugmentationSettings, MixSettings
from caev2.store.draws import stream_key


@contextlib.contextmanager
def drawing_from(*parts: str | int) -> Iterator[None]:
    """Meanwhile the global generators give draws that are a function of the parts; on a CPU alone."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    key = stream_key(*parts)
    random.seed(key)
    np.random.seed([key >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96)])
    torch.default_generator.manual_seed(key & (2**63 - 1))  # torch.manual_seed would change GPUs' as well
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


@functools.lru_cache(maxsize=4)
def train_transform(settings: AugmentationSettings, size_px: int, mean: Channels, std: Channels) -> Any:
    """From an image of Pillow to a normalised tensor, as timm does it.

    In this order: crop, flip, RandAugment or colour jitter, normalising, erasing with noise.

    Raises:
        ConfigError: timm knows no such augmentation.
    """
    try:
        return create_transform(
            size_px,
            is_training=True,
            scale=settings.crop_scale,
            hflip=settings.flip,
            color_jitter=settings.color_jitter,  # type: ignore[arg-type] - none is allowed, and means none
            auto_augment=settings.auto_augment,
            interpolation="bicubic",
            mean=mean,
            std=std,
            re_prob=settings.erase,
            re_mode="pixel",
            re_count=1,
        )
    except (AssertionError, KeyError, ValueError) as problem:
        raise ConfigError(
            f"augmentation.auto_augment cannot be {settings.auto_augment!r}: timm does not know it ({problem}). Write "
            "it like rand-m9-mstd0.5-inc1, or none."
        ) from None


class Mixer:
    """Mixes the images of a batch in place, group by group, and makes soft labels.

    Image i of a group of n meets image n - 1 - i, and all of a group share one draw, as timm does it.

    Args:
        settings: How.
        classes: How many there are.
        batch_size: Images of a step, over all ranks.
        seed: Draws are a function of it, the step, and the group's number in that batch.
    """

    def __init__(self, settings: MixSettings, *, classes: int, batch_size: int, seed: int):
        self._settings, self._classes, self._seed = settings, classes, seed
        self._size = group_size(settings, batch_size)
        self._mixup = Mixup(
            mixup_alpha=settings.mixup,
            cutmix_alpha=settings.cutmix,
            label_smoothing=settings.smoothing,
            num_classes=classes,
        )

    def __call__(
        self,
        images: Float[Tensor, "image 3 size size"],
        labels: Int64[Tensor, " image"],
        *,
        step: int,
        first_image: int = 0,
    ) -> tuple[Float[Tensor, "image 3 size size"], Float[Tensor, "image class"]]:
        """The mixed images, and the share of every class in each.

        Args:
            images: Of one rank; they are changed.
            labels: Of the images.
            step: Of the training.
            first_image: Place of the first one in the batch of all ranks.
        """
        if not self._settings.is_on:
            return images, mixup_target(labels, self._classes, 1.0, self._settings.smoothing)
        groups, targets = zip(images.split(self._size), labels.split(self._size), strict=True), []
        for number, (group, named) in enumerate(groups, start=first_image // self._size):
            with drawing_from("mix", self._seed, step, number):
                targets.append(self._mixup(group, named)[1])
        return images, torch.cat(targets)


def group_size(settings: MixSettings, batch_size: int) -> int:
    """How many images share a draw: a whole batch, where it is smaller than a group."""
    return min(settings.images, batch_size)


def check_groups(settings: MixSettings, batch_size: int, ranks: int) -> None:
    """Refuse ranks that would not take whole groups of images to mix: what is learnt would depend on their number.

    Raises:
        ConfigError: They would not.
    """
    if batch_size % ranks:
        raise ConfigError(
            f"A batch of {batch_size} images is not cut into {ranks} equal ranks. Give a batch_size that is."
        )
    share, size = batch_size // ranks, group_size(settings, batch_size)
    if settings.is_on and (share % size or size % 2):
        raise ConfigError(
            f"The {share} images that a device takes of a batch are not cut into groups of {size} that are mixed in "
            f"pairs. Give an even batch_size, and --set mix.images to an even divisor of {share}."
        )
