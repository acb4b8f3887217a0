"""Batches as a pure function of the step: which rows, which view, which patches are masked, which branches are kept.

A worker prepares whole steps. Nothing depends on what came before, so a run resumes from a step number.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, UInt8
from torch import Tensor

from caev2.errors import ConfigError
from caev2.pretrain.learning.student_jitter import jitter_crops
from caev2.pretrain.student.model import branch_rates
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.supply.batch_memory import Layout, Recycled
from caev2.pretrain.supply.keep import keep_bits
from caev2.pretrain.supply.masks import MaskSettings, draw_masks
from caev2.pretrain.supply.order import RowOrder
from caev2.store.pixels.crops import Crops
from caev2.store.reader import Store


@runtime_checkable
class ShownCrops(Protocol):
    """Whoever gives the student's crops of views, and beside them what a live teacher is shown of the same views."""

    @property
    def drifted(self) -> str | None:
        """As of `Crops`."""
        ...

    @property
    def shown_px(self) -> int:
        """Side of what the teacher is shown."""
        ...

    def fill_both(
        self,
        view: int,
        images: Int[np.ndarray, " image"],
        into: UInt8[np.ndarray, "image size size 3"],
        shown: UInt8[np.ndarray, "image other other 3"],
    ) -> None:
        """The pixels of one view of some images, as the student and as the teacher has them."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that enters one step."""

    step: int
    epoch: int
    view: int
    rows: Int64[Tensor, " image"]
    """Numbers of the images in the store."""
    crops: UInt8[Tensor, "image size size 3"]
    targets: Float[Tensor, "image token width"] | UInt8[Tensor, "image token byte"] | None
    """As stored, class token first, then all patches in row-major order; `TargetDecoder` makes latents of them. None
    where a live teacher makes them."""
    visible: Int64[Tensor, "image visible"]
    masked: Int64[Tensor, "image masked"]
    keep: Bool[Tensor, "branch image"] | None
    """None where drop path is off."""
    drifted: str | None
    """Key of an image that another decoder has changed a little."""
    shown: UInt8[Tensor, "image other other 3"] | None = None
    """What a live teacher is shown, where that is not `crops`."""

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by the names of their fields."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def to(self, device: str) -> "Batch":
        """The same batch with its tensors on a device."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors().items()}
        return dataclasses.replace(self, **moved)

    def split(self, parts: int) -> "list[Batch]":
        """Equal parts of the batch, one after another, without a copy: for the accumulation of gradients.

        Raises:
            ConfigError: The images are not that many equal parts.
        """
        images = _part_of(len(self.rows), parts, "parts")
        return [self._cut(slice(begin, begin + images)) for begin in range(0, parts * images, images)]

    def _cut(self, images: slice) -> "Batch":
        """Some of the images; `keep` alone has them second."""
        cut = {name: tensor[:, images] if name == "keep" else tensor[images] for name, tensor in self.tensors().items()}
        return dataclasses.replace(self, **cut)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from where it moves to a GPU while that computes.

        The data loader calls this where it was told to pin: it cannot look into a dataclass.
        """
        pinned = {name: tensor.pin_memory() for name, tensor in self.tensors().items()}
        return dataclasses.replace(self, **pinned)


def batch_of_tensors(tensors: Mapping[str, Tensor], step: int, epoch: int, view: int, drifted: str | None) -> Batch:
    """A batch of tensors that are there, by name."""
    return Batch(step=step, epoch=epoch, view=view, drifted=drifted, **{"keep": None, "targets": None, **tensors})


def _part_of(images: int, parts: int, what: str) -> int:
    if parts < 1 or images % parts:
        raise ConfigError(
            f"A batch of {images} images is not cut into {parts} equal {what}. Give a batch_size that is."
        )
    return images // parts


@dataclass(frozen=True, slots=True)
class Shard:
    """Which part of every batch a process loads."""

    index: int = 0
    """Its number, from 0."""
    count: int = 1
    """How many equal parts there are."""

    def __post_init__(self):
        """Check the number.

        Raises:
            ConfigError: There is no such part.
        """
        if not 0 <= self.index < self.count:
            raise ConfigError(f"There is no part {self.index} of {self.count}. Parts are counted from 0.")


WHOLE = Shard()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatches:
    """The batch of every step of a run, or an equal part of it.

    Raises:
        ConfigError: The batch size is not divided by the number of parts, or the jitter is out of range.
    """

    store: Store | None
    """Whose targets are read; none: a live teacher makes them."""
    crops: Crops | ShownCrops
    order: RowOrder
    model: ModelSettings
    mask: MaskSettings
    target: str
    seed: int
    student_jitter: float = 0.0
    """Strength of brightness, contrast and saturation jitter that the student alone sees, on top of the view's."""
    shard: Shard = WHOLE
    """What is loaded of each batch. Nothing of a row depends on another row, so parts make up the whole."""

    _memory: Recycled = field(default_factory=Recycled, init=False, repr=False, compare=False)

    def __post_init__(self):
        _part_of(self.order.batch_size, self.shard.count, "parts")
        if not 0 <= self.student_jitter <= 1:
            raise ConfigError(f"student_jitter is {self.student_jitter}; it must be in [0, 1], where 0 is none.")

    def batch_of(self, step: int) -> Batch:
        """The batch of one step."""
        layout = self.layout
        return self.fill(step, layout.tensors(self._memory.take(layout.bytes)))

    @property
    def layout(self) -> Layout:
        """Where the tensors of a batch lie in one piece of memory."""
        images, patches, masked = self.order.batch_size // self.shard.count, self.model.patches, self.mask.count
        size_px, rates = self.model.image_px, branch_rates(self.model)
        fields = {
            "rows": ((images,), "int64"),
            "crops": ((images, size_px, size_px, 3), "uint8"),
            "visible": ((images, patches - masked), "int64"),
            "masked": ((images, masked), "int64"),
        }
        if self.store is not None:
            row = self.store.manifest.spec.targets[self.target].row_type
            fields["targets"] = ((images, *row.stored_shape), row.dtype)
        if isinstance(self.crops, ShownCrops):
            fields["shown"] = ((images, self.crops.shown_px, self.crops.shown_px, 3), "uint8")
        return Layout.of(fields | ({"keep": ((len(rates), images), "bool")} if any(rates) else {}))

    def fill(self, step: int, tensors: dict[str, Tensor]) -> Batch:
        """The batch of one step, made in the tensors of its layout."""
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        epoch, view, rows = self.order.epoch_of(step), self.order.view_of(step), self._rows_of(step)
        if self.store is not None and self.store.is_remote:
            self._fetch_ahead(step, self.store)
        arrays["rows"][:] = rows
        arrays["visible"][:], arrays["masked"][:] = draw_masks(self.mask, self.model.grid_size, self.seed, epoch, rows)
        if "keep" in arrays:
            arrays["keep"][:] = keep_bits(self.seed, epoch, step, rows, branch_rates(self.model))
        if self.store is not None:
            self.store.read_into(arrays["targets"], self.target, view, rows)
        if isinstance(self.crops, ShownCrops):
            self.crops.fill_both(view, rows, arrays["crops"], arrays["shown"])
        else:
            self.crops.fill(view, rows, arrays["crops"])
        if self.student_jitter:
            jitter_crops(arrays["crops"], self.student_jitter, self.seed, epoch, step, rows)
        return batch_of_tensors(tensors, step, epoch, view, self.crops.drifted)

    def _rows_of(self, step: int) -> Int64[np.ndarray, " row"]:
        """The shard's rows of a step."""
        images = self.order.batch_size // self.shard.count
        begin = self.shard.index * images
        return self.order.rows_of(step)[begin : begin + images]

    def _fetch_ahead(self, step: int, store: Store) -> None:
        """Have the files fetched that this step and the next window read."""
        for near in (step, step + self.order.steps_of_window):
            if near < self.order.total_steps:
                store.prefetch([self.target], self.order.view_of(near), self.order.rows_of(near))
