"""The loss of CAE v2: how far the student's latents point from the teacher's. And what ablations put in its place."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from caev2.pretrain.learning.objective import PUBLISHED, LossSettings
from caev2.pretrain.student.tokens import take_tokens

SQUARE_EPSILON = 1e-12
"""Added to each squared length, as torch's cosine embedding loss does."""


class Alignment(NamedTuple):
    """The loss of a batch, and the mean cosine of each kind of token (detached); not a number where there are none."""

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
    if torch.compiler.is_compiling():  # it fuses by itself; older DDP compiles no function whose backward is its own
        return _plain_cosines(predicted.float(), target.float())
    return _Cosines.apply(predicted, target)  # type: ignore[return-value]


def _plain_cosines(f: Tensor, t: Tensor) -> Tensor:
    squares = (f.square().sum(-1) + SQUARE_EPSILON) * (t.square().sum(-1) + SQUARE_EPSILON)
    return (f * t).sum(-1) * squares.rsqrt()


class _Cosines(torch.autograd.Function):
    """Three dot products forward, two scaled additions backward; autograd's own way passes over the latents often."""

    @staticmethod
    def forward(ctx, predicted: Tensor, target: Tensor) -> Tensor:
        f, t = predicted.float(), target.float()
        over_f = (torch.linalg.vecdot(f, f) + SQUARE_EPSILON).rsqrt()
        over_t = (torch.linalg.vecdot(t, t) + SQUARE_EPSILON).rsqrt()
        cosines = torch.linalg.vecdot(f, t) * over_f * over_t
        ctx.save_for_backward(predicted, target, cosines, over_f, over_t)
        return cosines

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        predicted, target, cosines, over_f, over_t = ctx.saved_tensors
        along_target = (grad * over_f * over_t)[..., None]
        along_itself = (grad * cosines * over_f.square())[..., None]
        return (target.float() * along_target).sub_(predicted.float() * along_itself).to(predicted.dtype), None


def alignment_loss(
    predicted: Float[Tensor, "image token width"],
    target: Float[Tensor, "image token width"],
    visible_count: int,
    settings: LossSettings = PUBLISHED,
) -> Alignment:
    """How far the student's latents are from the teacher's.

    As published, `1 − cos` averaged over every token of every image: 0 when aligned, 1 when orthogonal, 2 when
    opposed. So each kind of token weighs as much as it has members (`token_mean`).

    Args:
        predicted: In the order class token, visible patches, masked patches.
        target: In the same order (`order_targets`).
        visible_count: How many of the tokens are visible patches.
        settings: Which distance, and how it is averaged.
    """
    counts = [1, visible_count, predicted.shape[1] - 1 - visible_count]
    cosines = token_cosines(predicted, target)
    distances = 1 - cosines if settings.distance == "cosine" else _distances(settings.distance, predicted, target)
    shares = settings.shares(*counts[1:])
    averages = [kind.mean(0).sum() * share for kind, share in zip(distances.split(counts, 1), shares, strict=True)]
    kinds = [kind.mean() for kind in cosines.detach().split(counts, 1)]
    return Alignment(torch.stack([one for one, share in zip(averages, shares, strict=True) if share]).sum(), *kinds)


def _distances(
    distance: str, predicted: Float[Tensor, "image token width"], target: Float[Tensor, "image token width"]
) -> Float[Tensor, "image token"]:
    compare = {"mse": functional.mse_loss, "smooth_l1": functional.smooth_l1_loss, "l1": functional.l1_loss}[distance]
    return compare(predicted.float(), target.float(), reduction="none").mean(-1)


def order_targets(
    target: Float[Tensor, "image token width"],
    visible: Int[Tensor, "image visible"],
    masked: Int[Tensor, "image masked"],
) -> Float[Tensor, "image predicted width"]:
    """Targets in the order of the predictions: class token, visible patches, masked patches.

    Args:
        target: Class token first, then all patches in row-major order, as stored.
        visible: Indices of the visible patches.
        masked: Indices of the masked patches; none of them where nothing predicts them.
    """
    order = torch.cat([torch.zeros_like(visible[:, :1]), visible + 1, masked + 1], dim=1)
    return take_tokens(target, order)
