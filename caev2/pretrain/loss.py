"""The one loss of CAE v2: how far the student's latents point from the teacher's."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caev2.pretrain.tokens import take_tokens

SQUARE_EPSILON = 1e-12
"""Added to each squared length, as torch's cosine embedding loss does."""


class Alignment(NamedTuple):
    """The loss of a batch, and the mean cosine of each kind of token (detached)."""

    loss: Float[Tensor, ""]
    class_cosine: Float[Tensor, ""]
    visible_cosine: Float[Tensor, ""]
    masked_cosine: Float[Tensor, ""]


def token_cosines(
    predicted: Float[Tensor, "image token width"], target: Float[Tensor, "image token width"]
) -> Float[Tensor, "image token"]:
    """The cosine between prediction and target of every token, in float32.

    `⟨f,t⟩ / √((‖f‖² + 1e-12)(‖t‖² + 1e-12))`: neither needs to be normalised.
    """
    predicted, target = predicted.float(), target.float()
    squares = (predicted.square().sum(-1) + SQUARE_EPSILON) * (target.square().sum(-1) + SQUARE_EPSILON)
    return (predicted * target).sum(-1) * squares.rsqrt()


def alignment_loss(
    predicted: Float[Tensor, "image token width"],
    target: Float[Tensor, "image token width"],
    visible_count: int,
) -> Alignment:
    """Mean cosine distance between the student's latents and the teacher's.

    `1 − cos`, averaged over every token of every image: 0 when aligned, 1 when orthogonal, 2 when opposed. So
    each kind of token weighs as much as it has members (`token_mean`, the published choice).

    Args:
        predicted: In the order class token, visible patches, masked patches.
        target: In the same order (`order_targets`); only its direction counts.
        visible_count: How many of the tokens are visible patches.
    """
    cosines = token_cosines(predicted, target)
    kinds = cosines.detach().split([1, visible_count, cosines.shape[1] - 1 - visible_count], dim=1)
    return Alignment((1 - cosines).mean(), *(kind.mean() for kind in kinds))


def order_targets(
    target: Float[Tensor, "image token width"],
    visible: Int[Tensor, "image visible"],
    masked: Int[Tensor, "image masked"],
) -> Float[Tensor, "image token width"]:
    """Targets in the order of the predictions: class token, visible patches, masked patches.

    Args:
        target: Class token first, then all patches in row-major order, as stored.
        visible: Indices of the visible patches.
        masked: Indices of the masked patches.
    """
    order = torch.cat([torch.zeros_like(visible[:, :1]), visible + 1, masked + 1], dim=1)
    return take_tokens(target, order)
