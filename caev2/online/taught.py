"""A live teacher in a training step: from the crops on the device to the latents that the student is to predict."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float16, Float32, UInt8
from torch import Tensor

from caev2.extract.encode import encoder_for
from caev2.extract.teachers.teacher import Teacher
from caev2.pretrain.learning.decode import TargetDecoder
from caev2.pretrain.learning.step import image_statistics, normalise_by
from caev2.pretrain.supply.batches import Batch
from caev2.store.codecs.catalog import codec_named
from caev2.store.reader import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Lecture:
    """Which latents are asked of a teacher, and how."""

    teacher: Teacher
    """On the device."""
    tap: str
    """Where in it they are taken."""
    batch: int
    """Crops in one forward pass. The last bits of latents may depend on it, so a short batch is filled up."""

    def latents_of(self, crops: UInt8[Tensor, "image size size 3"]) -> Float[Tensor, "image token width"]:
        """The latents of any number of crops, in the precision that the teacher computes in, without gradient."""
        pieces = [self._forward(crops[first : first + self.batch]) for first in range(0, len(crops), self.batch)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _forward(self, crops: UInt8[Tensor, "image size size 3"]) -> Float[Tensor, "image token width"]:
        missing = self.batch - len(crops)
        filled = torch.cat([crops, crops.new_zeros((missing, *crops.shape[1:]))]) if missing else crops
        with torch.no_grad(), _whole_float32():
            return self.teacher.tokens(filled, [self.tap])[self.tap][: len(crops)]


@contextlib.contextmanager
def _whole_float32() -> Iterator[None]:
    """No TF32 in a teacher that computes in float32: training allows it, extraction does not."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class AsStored:
    """Latents as they would come back from a store: rounded to float16, encoded with its tables, decoded.

    Args:
        store: Whose codec and tables.
        target: Of which target.
        device: Where the latents are. On a GPU codes are made there if the codec can be, as extraction makes them.
    """

    def __init__(self, store: Store, target: str, device: str):
        spec, tables = store.manifest.spec.targets[store.target(target)], store.tables(target)
        self._codec, self._tables, self._device = codec_named(spec.codec), tables, torch.device(device)
        on_gpu = self._device.type == "cuda"
        self._encode_there = encoder_for(spec.codec, tables, spec.tokens, self._device) if on_gpu else None
        self._decode: Callable[[Tensor], Tensor] = TargetDecoder(store.decode_plan(target), spec.tokens).to(device)

    def __call__(self, latents: Float[Tensor, "image token width"]) -> Float32[Tensor, "image token width"]:
        """What a student learns from that store."""
        return self._decode(self._encode(latents.half()))

    def compile(self) -> None:
        """Let torch compile the decoding."""
        self._decode = torch.compile(self._decode, dynamic=False)

    def _encode(
        self, latents: Float16[Tensor, "image token width"]
    ) -> Float16[Tensor, "image token width"] | UInt8[Tensor, "image token byte"]:
        if self._encode_there is not None:
            return self._encode_there(latents)
        stored = self._codec.encode(latents.cpu().numpy(), self._tables).stored()
        return torch.from_numpy(stored).to(self._device)


class AsComputed:
    """Latents as the teacher gives them, in float32."""

    def __call__(self, latents: Float[Tensor, "image token width"]) -> Float32[Tensor, "image token width"]:
        """The same numbers."""
        return latents.float()

    def compile(self) -> None:
        """There is nothing to compile."""


class TaughtInputs:
    """What a batch shows the student, and what a live teacher says of it; stands where `StoredInputs` does.

    Args:
        lecture: What is asked of the teacher. It is not compiled: its bits are to be those of extraction.
        form: What becomes of its latents.
    """

    def __init__(self, lecture: Lecture, form: AsStored | AsComputed):
        self._lecture, self._form = lecture, form
        self._normalise: Callable[[Tensor, Tensor, Tensor], Tensor] = normalise_by

    def __call__(self, batch: Batch) -> tuple[Float[Tensor, "image 3 size size"], Float[Tensor, "image token width"]]:
        """Normalised images, and latents."""
        shown = batch.crops if batch.shown is None else batch.shown
        images = self._normalise(batch.crops, *image_statistics(batch.crops.device))
        return images, self._form(self._lecture.latents_of(shown))

    def compile(self) -> None:
        """Let torch compile what the student's side takes."""
        self._normalise = torch.compile(normalise_by, dynamic=False)
        self._form.compile()
