"""What makes features or labels useless for any probe, found before time is spent on one."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caev2.errors import CheckpointError, SourceError


def check_finite(features: Float[Tensor, "image width"], what: str) -> None:
    """Refuse features that hold NaN or infinity: no probe of them means anything.

    Raises:
        CheckpointError: Some value is not finite.
    """
    # a value that is not finite makes the sum so too; a sum may also overflow, hence the second look
    if torch.isfinite(features.sum(dtype=torch.float64)):
        return
    broken = ~torch.isfinite(features).all(dim=1)
    if broken.any():
        first = int(broken.nonzero()[0])
        raise CheckpointError(
            f"The {what} features of {int(broken.sum())} of {len(features)} images are not finite, "
            f"first those of image number {first}. The encoder that computed them is broken: probe an earlier "
            "checkpoint."
        )


def check_labels(labels: Int[Tensor, " image"], classes: int, what: str) -> None:
    """Refuse labels outside 0 .. classes-1.

    Raises:
        SourceError: There are no labels, or one is out of range.
    """
    if len(labels) == 0:
        raise SourceError(
            f"There are no {what} images to probe with. Give a folder with one folder of images per class."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise SourceError(
            f"The {what} labels reach from {low} to {high}, outside the {classes} classes 0 to "
            f"{classes - 1}. Give train and val the same class folders."
        )


def check_several_classes(labels: Int[Tensor, " image"], what: str) -> None:
    """Refuse a train set of a single class.

    Raises:
        SourceError: All labels are the same.
    """
    if bool((labels == labels[0]).all()):
        raise SourceError(
            f"All {len(labels)} {what} images have class {int(labels[0])}. A probe needs images of two classes or more."
        )
