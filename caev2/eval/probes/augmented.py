"""Frozen features of random crops: what a head is trained on where images are augmented."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from caev2.eval.crops import RandomCropping
from caev2.eval.features import Reading, Subject
from caev2.eval.shares import Tensors, in_shares
from caev2.pretrain.together.ranks import Company
from caev2.progress import Progress
from caev2.store.images import ImageSource
from caev2.workers import in_order

_FEATURES = "features"


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmented:
    """A subject's features of random crops of some images, others in every epoch."""

    subject: Subject
    images: ImageSource
    reading: Reading
    seed: int
    company: Company
    progress: Progress

    def batches(self, epoch: int, steps: Sequence[Sequence[int]]) -> Iterator[Float[Tensor, "image width"] | None]:
        """Features of the images of each step, in order, at the first rank; none at the others.

        Raises:
            SourceError: An image cannot be decoded.
        """
        compute = partial(self._compute, epoch)
        shares = in_shares(compute, steps, batch=self.reading.batch, company=self.company, progress=self.progress)
        for found in shares:
            yield found.get(_FEATURES)

    def _compute(self, epoch: int, batches: Iterable[Sequence[int]]) -> Iterator[Tensors]:
        cropping = RandomCropping(
            source=self.images,
            size_px=self.subject.size_px,
            orientation=self.reading.orientation,
            seed=self.seed,
            epoch=epoch,
        )
        for crops in in_order(cropping.crops_of, batches, workers=self.reading.workers):
            found = {_FEATURES: self._features_of(crops.to(self.reading.device))}
            self.progress.advance(len(crops))
            yield found

    @torch.inference_mode()
    def _features_of(self, crops: UInt8[Tensor, "image size size 3"]) -> Float[Tensor, "image width"]:
        pooled = self.subject.pool(crops)
        return pooled[main_pooling(pooled)].float().cpu()


def main_pooling(pooled: Iterable[str]) -> str:
    """What probes look at that choose none: the class token, where there is one."""
    names = list(pooled)
    return "class" if "class" in names else names[0]
