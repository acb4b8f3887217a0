"""What makes features or labels useless for any probe, found before time is spent on one."""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from caev2.errors import CheckpointError, SourceError

_SPREAD = 1e-5
"""Of features over images, relative to their size: below it there is nothing but float32 rounding."""
_LEAST_RANK = 1.05
"""Below this effective rank, one direction holds all but a ten-thousandth of the variance."""
_TELLING_IMAGES = 32  # fewer images than this may lie on a line by chance, or be copies of two
_RANK_WIDTH, _RANK_IMAGES, _FEW_RANK_IMAGES = 1_024, 16_384, 512
"""Of features up to this width so many images are looked at, of wider ones a few: a second or so."""


def check_weights(tensors: Iterable[tuple[str, Tensor]], what: str) -> None:
    """Refuse weights that hold NaN or infinity, before an image is read.

    Raises:
        CheckpointError: Some number is not finite; the first tensor is named.
    """
    for name, tensor in tensors:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            broken = int((~torch.isfinite(tensor)).sum())
            raise CheckpointError(
                f"The weights of {what} are broken: {broken} of the {tensor.numel()} numbers of {name} are not "
                "finite. Probe an earlier checkpoint."
            )


def check_informative(
    pooled: Mapping[str, Float[Tensor, "image _"]], crops: UInt8[Tensor, "image size size 3"], what: str
) -> None:
    """Refuse features that are not finite, or the same for images that differ: found in the first batch.

    One pooling that tells images apart is enough, for poolings compete.

    Raises:
        CheckpointError: No probe of these features means anything.
    """
    for name, features in pooled.items():
        check_finite(features, f"{what} ({name})")
    if bool((crops == crops[:1]).all()):
        return
    if all(_is_constant(features) for features in pooled.values()):
        raise CheckpointError(
            f"The features of {what} have collapsed: those of the first {len(crops)} images are all the same, though "
            "the images differ. There is nothing to probe; look at the run's log for where its cosines stood still."
        )
    _check_rank(pooled, crops, what)


def _check_rank(
    pooled: Mapping[str, Float[Tensor, "image _"]], crops: UInt8[Tensor, "image size size 3"], what: str
) -> None:
    """Refuse features that all lie on one line, where the images do not."""
    if len(crops) < _TELLING_IMAGES or any(features.shape[1] == 1 for features in pooled.values()):
        return
    best = max(effective_rank(features) for features in pooled.values())
    step = max(1, crops.shape[1] // 16)
    shown = effective_rank(crops[:, ::step, ::step].flatten(1).float())
    if best < _LEAST_RANK <= shown:
        raise CheckpointError(
            f"The features of {what} have collapsed onto a line: over the first {len(crops)} images their effective "
            f"rank is {best:.2f}, that of the pixels {shown:.1f}. No probe of them means anything; look at the run's "
            "log for where its cosines stood still."
        )


def effective_rank(features: Float[Tensor, "image width"]) -> float:
    """In how many directions features spread: exp of the entropy of their normalised singular values.

    Roy & Vetterli 2007; of representations, RankMe (Garrido et al., 2210.02885). The mean is taken off first, so that
    what all images share counts for nothing; features that are all the same have rank 0. Large sets are judged by
    images at even distances.
    """
    most = _RANK_IMAGES if features.shape[1] <= _RANK_WIDTH else _FEW_RANK_IMAGES
    chosen = features[:: -(-len(features) // most)].double()
    centred = chosen - chosen.mean(0)
    gram = centred.T @ centred if centred.shape[1] <= len(centred) else centred @ centred.T
    spread = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    if float(spread.max()) <= _SPREAD * float(chosen.abs().max()):
        return 0.0
    share = spread / spread.sum()
    return float(torch.special.entr(share).sum().exp())


def _is_constant(features: Float[Tensor, "image width"]) -> bool:
    spread = (features - features.mean(0)).abs().max()
    return bool(spread <= _SPREAD * features.abs().max())


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
