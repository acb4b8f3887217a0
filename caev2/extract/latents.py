"""Running the teacher over the views of a unit, in batches whose cuts depend on nothing but the unit.

A teacher's last bits depend on the batch a view is computed in. Batches are therefore cut inside a unit, at a fixed
size, the last one padded: the same unit gives the same bytes whoever computes it, and whenever. The one exception is a
device that runs out of memory: from then on a batch is computed in halves, quarters, ..., which each unit's record
tells.

Nothing here waits for a GPU: batches are handed to it, and whoever asks for the latents waits for them.
"""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from caev2.errors import TeacherError
from caev2.extract.encode import Encode
from caev2.extract.prepare import PreparedImage
from caev2.extract.teachers.teacher import Teacher
from caev2.progress import Progress, Silent
from caev2.store.codecs.directions import NORM_LIMIT

Rows = dict[str, Shaped[np.ndarray, "view token number"]]
"""By tap: latents in float16, or what the store keeps of them where they were encoded on the device."""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The rows of one batch, by tap; on a GPU they may still be on their way."""

    rows: dict[str, Shaped[Tensor, "view token number"]]
    storable: Bool[Tensor, " view"]
    """Whether every latent of a view is finite and has a norm that float16 can hold, as every codec asks."""
    views_at_once: int
    """How many views were computed together: the batch, or less where memory was short."""
    arrived: torch.cuda.Event | None

    def wait(self) -> None:
        """Return when the numbers are in this machine's memory."""
        if self.arrived is not None:
            self.arrived.synchronize()


@dataclass(frozen=True, slots=True)
class ImageLatents:
    """Where the latents of one image's views are: in one batch, or across several."""

    parts: tuple[tuple[Forwarded, slice], ...]

    @property
    def views_at_once(self) -> int:
        """The smallest number of views that any of them was computed with."""
        return min(forwarded.views_at_once for forwarded, _ in self.parts)

    def are_storable(self) -> bool:
        """Whether every codec can store them."""
        for forwarded, _ in self.parts:
            forwarded.wait()
        return all(bool(forwarded.storable[views].all()) for forwarded, views in self.parts)

    def read(self) -> Rows:
        """The numbers, by tap."""
        for forwarded, _ in self.parts:
            forwarded.wait()
        taps = self.parts[0][0].rows
        return {tap: _gathered([part.rows[tap][views].numpy() for part, views in self.parts]) for tap in taps}


class Batches:
    """Runs a teacher in batches of one size.

    Args:
        teacher: The frozen model.
        taps: Where its latents are taken.
        batch: Views in one forward pass.
        device: Where the teacher is.
        progress: Who is told that memory was short.
        encoders: What makes stored rows of the latents of some taps, on the device.
    """

    def __init__(
        self,
        teacher: Teacher,
        taps: Sequence[str],
        batch: int,
        device: str,
        progress: Progress | None = None,
        encoders: Mapping[str, Encode] | None = None,
    ):
        self._teacher, self._taps, self._batch, self._device = teacher, taps, batch, torch.device(device)
        self._at_once, self._encoders = batch, encoders or {}
        self._progress = progress or Silent()
        self._on_gpu = self._device.type == "cuda"

    def forward(self, crops: Sequence[UInt8[Tensor, "size size 3"]]) -> Forwarded:
        """The latents of at most a batch of crops.

        Raises:
            TeacherError: The device has not even memory for one view.
        """
        with torch.cuda.device(self._device) if self._on_gpu else contextlib.nullcontext():
            stacked = self._stack(crops)
            while True:
                try:
                    return self._forward(stacked, len(crops))
                except RuntimeError as problem:  # torch.OutOfMemoryError is one
                    if not _is_out_of_memory(problem):
                        raise
                    reason = str(problem).splitlines()[0]
                self._halve(reason)  # not earlier: the error holds on to what was computed

    def _forward(self, stacked: UInt8[Tensor, "view size size 3"], count: int) -> Forwarded:
        pieces = []
        for first in range(0, count, self._at_once):
            images = stacked[first : first + self._at_once].to(self._device, non_blocking=True)
            pieces.append(self._teacher.tokens(images, self._taps))
        tokens = {tap: _join([piece[tap] for piece in pieces])[:count] for tap in self._taps}
        storable = torch.stack([_are_storable(values) for values in tokens.values()]).all(0)
        latents = {tap: values.half() for tap, values in tokens.items()}
        rows = {tap: self._encoders.get(tap, _as_they_are)(values) for tap, values in latents.items()}
        if not self._on_gpu:
            return Forwarded(rows, storable, self._at_once, None)
        rows, storable = {tap: _fetch(values) for tap, values in rows.items()}, _fetch(storable)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(self._device))
        return Forwarded(rows, storable, self._at_once, arrived)

    def _stack(self, crops: Sequence[UInt8[Tensor, "size size 3"]]) -> UInt8[Tensor, "view size size 3"]:
        """A batch of the full size, filled up with black crops; page-locked if a GPU is to fetch it."""
        stacked = torch.empty((self._batch, *crops[0].shape), dtype=torch.uint8, pin_memory=self._on_gpu)
        torch.stack(list(crops), out=stacked[: len(crops)])
        stacked[len(crops) :] = 0
        return stacked

    def _halve(self, reason: str) -> None:
        if self._at_once == 1:
            raise TeacherError(
                f"{self._device} has not memory for one view of {self._teacher.description.name} "
                f"({reason}). Free some, or choose another device."
            )
        self._at_once = -(-self._at_once // 2)
        if self._on_gpu:
            torch.cuda.empty_cache()
        self._progress.warn(
            f"{self._device} is out of memory: batches of {self._batch} views are computed {self._at_once} at a time "
            "from here on. The last bits of latents may differ from those of a full batch, so each unit's record says "
            "so. Another --set teacher_batch=... makes a store that is the same everywhere."
        )


def _is_out_of_memory(problem: RuntimeError) -> bool:
    """Whether a GPU or, as torch says it, the machine itself had no memory left."""
    return isinstance(problem, torch.OutOfMemoryError) or any(words in str(problem) for words in _NO_MEMORY)


_NO_MEMORY = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "out of memory")


def _are_storable(latents: Float[Tensor, "view token width"]) -> Bool[Tensor, " view"]:
    """Asked before they are rounded to float16, which may lengthen a vector by 2^-11."""
    return (torch.linalg.vector_norm(latents, dim=-1, dtype=torch.float32) < NORM_LIMIT * (1 - 2**-10)).all(-1)


def _join(pieces: Sequence[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))


def _gathered(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _as_they_are(latents: Tensor) -> Tensor:
    return latents


def _fetch(tensor: Tensor) -> Tensor:
    """Begin to copy a tensor from a GPU into page-locked memory."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def latents_of_unit(
    images: Iterable[PreparedImage], batches: Batches, batch: int
) -> Iterator[tuple[PreparedImage, ImageLatents | None]]:
    """The latents of each image of a unit, in order; an undecodable image has none.

    Args:
        images: All images of the unit.
        batches: Runs the teacher.
        batch: Views in one forward pass.
    """
    waiting: deque[PreparedImage] = deque()
    crops: deque[Tensor] = deque()
    done: deque[tuple[Forwarded, int]] = deque()  # one for each view that is computed and not yet given away

    def forward() -> None:
        taken = [crops.popleft() for _ in range(min(batch, len(crops)))]
        forwarded = batches.forward(taken)
        done.extend((forwarded, place) for place in range(len(taken)))

    def complete() -> Iterator[tuple[PreparedImage, ImageLatents | None]]:
        while waiting and len(done) >= len(waiting[0].crops):
            image = waiting.popleft()
            yield image, _gather([done.popleft() for _ in range(len(image.crops))])

    for image in images:
        waiting.append(image)
        crops.extend(image.crops)
        while len(crops) >= batch:
            forward()
        yield from complete()
    if crops:
        forward()
    yield from complete()


def _gather(views: Sequence[tuple[Forwarded, int]]) -> ImageLatents | None:
    """Views that lie side by side in a batch become one slice of it."""
    parts: list[tuple[Forwarded, slice]] = []
    for forwarded, place in views:
        if parts and parts[-1][0] is forwarded:
            parts[-1] = forwarded, slice(parts[-1][1].start, place + 1)
        else:
            parts.append((forwarded, slice(place, place + 1)))
    return ImageLatents(tuple(parts)) if parts else None
