"""Exact counts of right and wrong pixels, and what is made of them: IoU, mIoU, pixel accuracy.

Counts are kept for each image, so that an interval can be had by drawing images again: pixels of one image are no
independent trials. The published numbers sum all pixels first and average over classes then, and so does this.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int, Int64
from torch import Tensor

from caev2.errors import SourceError
from caev2.eval.interval import Accuracy
from caev2.store.draws import Draws

IGNORED = 255
"""Of a label: the pixel counts for nobody."""


def count_confusions(
    truth: Int[Tensor, "image height width"], predicted: Int[Tensor, "image height width"], classes: int
) -> Int64[Tensor, "image class predicted"]:
    """How many pixels of each class got which answer, image by image; ignored pixels are left out.

    Args:
        truth: 0 .. classes-1, or `IGNORED`.
        predicted: 0 .. classes-1.
        classes: How many there are.
    """
    images = len(truth)
    kept = truth != IGNORED
    place = torch.arange(images, device=truth.device)[:, None, None] * classes + truth
    pairs = (place * classes + predicted)[kept]
    return torch.bincount(pairs, minlength=images * classes**2).view(images, classes, classes).cpu()


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """Pixels by image and class: all that IoU needs of a confusion matrix."""

    hits: Int64[np.ndarray, "image class"]
    """Of the class, and said to be."""
    truth: Int64[np.ndarray, "image class"]
    """Of the class."""
    predicted: Int64[np.ndarray, "image class"]
    """Said to be of the class."""

    @classmethod
    def of(cls, confusions: Int64[Tensor, "image class predicted"]) -> "Overlaps":
        """Sums of the lines, columns and diagonals of confusion matrices."""
        hits = confusions.diagonal(dim1=1, dim2=2)
        return cls(hits=hits.numpy(), truth=confusions.sum(2).numpy(), predicted=confusions.sum(1).numpy())


def class_iou(
    hits: Int[np.ndarray, "*set class"], truth: Int[np.ndarray, "*set class"], predicted: Int[np.ndarray, "*set class"]
) -> Float64[np.ndarray, "*set class"]:
    """Intersection over union of each class; NaN for one that is neither there nor said to be."""
    union = truth + predicted - hits
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationScore:
    """What predicted masks are worth; shares in 0 .. 1."""

    mean_iou: Accuracy
    """Over the classes that occur, with the 95 % percentile interval over resampled images."""
    pixel_accuracy: float
    """Of all pixels that count."""
    class_accuracy: float
    """Share of right pixels of each class that occurs in the truth, averaged over classes."""
    iou: tuple[float | None, ...]
    """Of each class; none for one that does not occur."""


def score_masks(
    confusions: Int64[Tensor, "image class predicted"], *, seed: int, resamples: int = 2_000
) -> SegmentationScore:
    """Numbers of a set of images; the interval is a function of the seed.

    Raises:
        SourceError: Every pixel is ignored.
    """
    parts = Overlaps.of(confusions)
    hits, truth, predicted = (counts.sum(0) for counts in (parts.hits, parts.truth, parts.predicted))
    if not truth.any():
        raise SourceError("Every pixel of the val masks is ignored. Look at --ignore, and at the masks.")
    iou = class_iou(hits, truth, predicted)
    low, high = np.quantile(_resample(parts, seed, resamples), [0.025, 0.975])
    present = truth > 0
    return SegmentationScore(
        mean_iou=Accuracy(value=float(np.nanmean(iou)), low=float(low), high=float(high)),
        pixel_accuracy=float(hits.sum() / truth.sum()),
        class_accuracy=float((hits[present] / truth[present]).mean()),
        iou=tuple(None if np.isnan(one) else round(float(one), 6) for one in iou),
    )


def _resample(parts: Overlaps, seed: int, resamples: int) -> Float64[np.ndarray, " resample"]:
    """The mIoU of resampled sets of images."""
    images, means = len(parts.hits), []
    draws = Draws(seed, "bootstrap of masks", images)
    for _ in range(resamples):
        chosen = np.bincount((draws.words(images) % np.uint64(images)).astype(np.int64), minlength=images)
        sums = [chosen @ counts for counts in (parts.hits, parts.truth, parts.predicted)]
        if sums[1].any():  # a draw of images without a pixel that counts says nothing
            means.append(np.nanmean(class_iou(*sums)))
    return np.array(means)
