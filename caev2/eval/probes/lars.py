"""The head of the `official` linear probe, and LARS, which trains it.

LARS (You et al., 1708.03888) scales each gradient to a fixed share of the length of what it changes, here 0.001, so
that large batches may be trained at large learning rates. Vectors, here the bias, take plain steps with momentum.
"""

import math

import torch
from jaxtyping import Float, Int
from timm.optim.lars import Lars
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

MOMENTUM, TRUST = 0.9, 0.001  # as published, and no weight decay
_EPS = 1e-6  # of the published probe's batch norm
_HEAD_STD = 0.01


def make_head(width: int, classes: int, seed: int) -> nn.Sequential:
    """Batch norm without gains, then a linear map that starts small."""
    linear = nn.Linear(width, classes)
    nn.init.trunc_normal_(linear.weight, std=_HEAD_STD, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.BatchNorm1d(width, affine=False, eps=_EPS), linear)


def lars_of(head: nn.Module) -> Lars:
    """The optimiser of a head: matrices at a trusted length, vectors as they come; nothing decays."""
    matrices = [parameter for parameter in head.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in head.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "always_adapt": True}, {"params": vectors, "always_adapt": False}]
    return Lars(groups, momentum=MOMENTUM, trust_coeff=TRUST)  # type: ignore[arg-type] # inferred from a default of 0


def take_step(
    head: nn.Module,
    optimizer: Lars,
    features: Float[Tensor, "image width"],
    labels: Int[Tensor, " image"],
    lr: float,
) -> Float[Tensor, ""]:
    """Change a head in training mode by one batch; the loss before that."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = cross_entropy(head(features), labels.long())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def lr_share(epoch: float, *, epochs: int, warmup_epochs: float) -> float:
    """The share of the highest learning rate at a moment in epochs: linear warm-up, then a cosine to zero."""
    if epoch < warmup_epochs:
        return epoch / warmup_epochs
    return (1 + math.cos(math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs))) / 2
