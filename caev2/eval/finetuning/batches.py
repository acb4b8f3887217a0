"""Augmented training images, step by step: a pure function of the step, whoever makes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from caev2.errors import ConfigError, ImageUndecodable, SourceError
from caev2.eval.finetuning.augmentation import drawing_from, train_transform
from caev2.eval.finetuning.model import Channels
from caev2.eval.finetuning.recipes import AugmentationSettings
from caev2.pretrain.supply.keep import keep_bits
from caev2.pretrain.supply.order import RowOrder
from caev2.pretrain.together.ranks import Ranks
from caev2.store.images import ImageSource
from caev2.store.pixels.decode import Orientation, decode_rgb
from caev2.workers import in_order

PIECE_IMAGES = 32
"""What a worker makes at once: a whole batch would take it seconds, and half a gigabyte."""

Pixels = Float[Tensor, "image 3 size size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmenting:
    """How a worker turns numbers of images into augmented ones."""

    source: ImageSource
    settings: AugmentationSettings
    size_px: int
    mean: Channels
    std: Channels
    seed: int
    orientation: Orientation

    def piece(self, key: tuple[int, Sequence[int]]) -> tuple[Pixels, Int64[Tensor, " image"]]:
        """Images and labels.

        Args:
            key: The epoch, and numbers of images.

        Raises:
            SourceError: One cannot be decoded.
        """
        epoch, numbers = key
        images = torch.stack([self._image(epoch, number) for number in numbers])
        return images, torch.tensor([self.source.labels[number] for number in numbers])

    def _image(self, epoch: int, number: int) -> Float[Tensor, "3 size size"]:
        try:
            image = decode_rgb(self.source.read(number), self.orientation)
        except ImageUndecodable as problem:
            raise SourceError(
                f"{self.source.place(number)} cannot be decoded: {problem}. Repair or remove it: images that are left "
                "out in silence make numbers that nobody can compare."
            ) from None
        transform = train_transform(self.settings, self.size_px, self.mean, self.std)
        with drawing_from("augment", self.seed, epoch, self.source.keys[number]):
            return transform(image)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedBatch:
    """One rank's images of a step."""

    step: int
    images: Pixels
    labels: Int64[Tensor, " image"]
    keep: Bool[Tensor, "branch image"] | None
    """None where drop path is off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedBatches:
    """The batches of some steps, one rank's share of each."""

    augmenting: Augmenting
    order: RowOrder
    rates: tuple[float, ...]
    """Of drop path."""
    ranks: Ranks

    @property
    def share(self) -> int:
        """Images that this rank takes of a batch."""
        return self.order.batch_size // self.ranks.count

    def load(self, steps: range, *, workers: int, device: str) -> Iterator[TunedBatch]:
        """Batches in order, on a device, made ahead by workers.

        Raises:
            SourceError: An image cannot be read.
            WorkerDied: A worker was killed.
        """
        keys = ((self.order.epoch_of(step), piece) for step in steps for piece in self._pieces_of(step))
        on_gpu = device.startswith("cuda")
        made = in_order(self.augmenting.piece, keys, workers=workers, pin_memory=on_gpu)
        for step in steps:
            pieces = [next(made) for _ in self._pieces_of(step)]
            moved = [[part.to(device, non_blocking=on_gpu) for part in parts] for parts in zip(*pieces, strict=True)]
            yield TunedBatch(
                step=step, images=torch.cat(moved[0]), labels=torch.cat(moved[1]), keep=self._keep(step, device)
            )

    def rows_of(self, step: int) -> Int[np.ndarray, " row"]:
        """Numbers of this rank's images of a step."""
        begin = self.ranks.index * self.share
        return self.order.rows_of(step)[begin : begin + self.share]

    def _pieces_of(self, step: int) -> list[list[int]]:
        rows = self.rows_of(step).tolist()
        return [rows[begin : begin + PIECE_IMAGES] for begin in range(0, len(rows), PIECE_IMAGES)]

    def _keep(self, step: int, device: str) -> Bool[Tensor, "branch image"] | None:
        if not any(self.rates):
            return None
        seed, epoch = self.augmenting.seed, self.order.epoch_of(step)
        return torch.from_numpy(keep_bits(seed, epoch, step, self.rows_of(step), self.rates)).to(device)


def order_images(count: int, *, batch_size: int, epochs: int, seed: int) -> RowOrder:
    """Which images each step trains on: every epoch a fresh permutation, in whole batches.

    Raises:
        ConfigError: There are fewer images than a batch has.
    """
    if count < batch_size:
        raise ConfigError(
            f"There are {count} training images, fewer than one batch of {batch_size}. Give --set batch_size={count} "
            "or less, and a learning rate that is smaller in proportion."
        )
    return RowOrder(rows=np.arange(count), views=1, batch_size=batch_size, epochs=epochs, seed=seed)
