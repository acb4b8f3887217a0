"""What a model says of every image of a split, over all ranks, each image once."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, distributed

from caev2.errors import CheckpointError
from caev2.eval.checks import check_informative
from caev2.eval.crops import Cropping
from caev2.eval.finetuning.model import Channels, FineTuner
from caev2.eval.score import Score, score_answers
from caev2.extract.teachers.teacher import normalise
from caev2.pretrain.together.ranks import Ranks
from caev2.store.images import ImageSource
from caev2.store.pixels.decode import Orientation
from caev2.workers import in_order

_IMAGES_AT_ONCE = 128
_FIRST_IMAGES = 128  # looked at before any training


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """Who is asked of which images, and how they are cut."""

    source: ImageSource
    size_px: int
    resize_px: int
    mean: Channels
    std: Channels
    orientation: Orientation
    device: str
    bf16: bool
    workers: int
    ranks: Ranks

    def predict(self, model: FineTuner) -> Int64[Tensor, " image"]:
        """The most likely class of every image, known to all ranks.

        Each rank is asked of a part, without overlap, so that every image counts once.

        Raises:
            SourceError: An image cannot be decoded.
        """
        images, rank = len(self.source), self.ranks
        own = range(images * rank.index // rank.count, images * (rank.index + 1) // rank.count)
        said = torch.zeros(images, dtype=torch.int64)
        answers = [self._answer(model, crops) for crops in self._crops_of(own)]
        said[own.start : own.stop] = torch.cat(answers).cpu() if answers else said[:0]
        if rank.count > 1:
            distributed.all_reduce(said)  # nought from all but one
        return said

    def score(self, predicted: Int64[Tensor, " image"], seed: int) -> Score:
        """What answers are worth."""
        labels = torch.tensor(self.source.labels)
        return score_answers(predicted[None], labels, classes=len(self.source.classes), seed=seed)

    def check_start(self, model: FineTuner, what: str) -> None:
        """Refuse an encoder whose features say nothing, while no time was spent.

        Raises:
            CheckpointError: They are not finite, or the same for images that differ.
            SourceError: An image cannot be decoded.
        """
        for crops in self._crops_of(range(min(_FIRST_IMAGES, len(self.source)))):
            with torch.inference_mode():
                pooled = model.pool(self._pixels(crops)).float().cpu()
            check_informative({"mean": pooled}, crops, what)

    def _crops_of(self, images: range) -> Iterator[UInt8[Tensor, "image size size 3"]]:
        cropping = Cropping(
            source=self.source, size_px=self.size_px, resize_px=self.resize_px, orientation=self.orientation
        )
        begins = range(images.start, images.stop, _IMAGES_AT_ONCE)
        parts = [range(begin, min(begin + _IMAGES_AT_ONCE, images.stop)) for begin in begins]
        return in_order(cropping.crops_of, parts, workers=self.workers)

    @torch.inference_mode()
    def _answer(self, model: FineTuner, crops: UInt8[Tensor, "image size size 3"]) -> Int64[Tensor, " image"]:
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bf16):
            scores = model(self._pixels(crops))
        return _decide(scores.float())

    def _pixels(self, crops: UInt8[Tensor, "image size size 3"]) -> Float[Tensor, "image 3 size size"]:
        return normalise(crops.to(self.device), self.mean, self.std)


def _decide(scores: Float[Tensor, "image class"]) -> Int64[Tensor, " image"]:
    """The class of the highest score; scores that are no numbers have none.

    Raises:
        CheckpointError: There are such scores.
    """
    if not bool(torch.isfinite(scores).all()):
        raise CheckpointError(
            "The model's scores are not finite, though its loss was. Lower optimizer.lr, or --set precision=fp32."
        )
    return scores.argmax(dim=1)
