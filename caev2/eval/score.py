"""From answers to numbers: the accuracy with its intervals, and of each class."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from caev2.eval.interval import Accuracy, bootstrap, spread, wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What the answers of one probe are worth."""

    accuracy: Accuracy
    """With the 95 % interval of Wilson; over several draws, their mean with one standard deviation to both sides."""
    bootstrap: Accuracy | None
    """The same with the 95 % percentile interval over resampled images; none for several draws."""
    draws: tuple[float, ...]
    """The accuracy of each draw of labelled images, where there are several."""
    per_class: tuple[float | None, ...]
    """The share of right answers among the images of each class, in the order of classes; none where there are none."""


def score_answers(
    predicted: Int[Tensor, "draw image"], labels: Int[Tensor, " image"], *, classes: int, seed: int
) -> Score:
    """What answers are worth; the resamples of images are a function of the seed."""
    right = (predicted == labels.to(predicted.device)).cpu()
    per_class = share_by_class(right, labels.cpu(), classes)
    if len(right) > 1:
        shares = tuple(right.double().mean(1).tolist())
        return Score(accuracy=spread(shares), bootstrap=None, draws=shares, per_class=per_class)
    return Score(
        accuracy=wilson(int(right.sum()), right.shape[1]),
        bootstrap=bootstrap(right[0].numpy(), seed=seed),
        draws=(),
        per_class=per_class,
    )


def share_by_class(
    right: Bool[Tensor, "draw image"], labels: Int[Tensor, " image"], classes: int
) -> tuple[float | None, ...]:
    """The share of right answers among the images of each class, over all draws."""
    images = torch.bincount(labels, minlength=classes).double()
    hits = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, right.double().mean(0))
    shares = np.round((hits / images.clamp(min=1)).numpy(), 6)
    return tuple(float(share) if count else None for share, count in zip(shares, images, strict=True))
