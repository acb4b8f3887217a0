"""Residual branches: what they are multiplied with, by learning and by drop path."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class LayerScale(nn.Module):
    """A learnt factor for every channel of a branch, in timm's names."""

    def __init__(self, width: int, start: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, branch: Float[Tensor, "image token width"]) -> Float[Tensor, "image token width"]:
        """The branch, scaled."""
        return branch * self.gamma


class DropPath(nn.Module):
    """Turns keep bits into what each branch is multiplied with: 0, or one over the probability of being kept.

    The bits are given, never drawn here, so that a step is a function of its inputs.

    Args:
        rates: The probability of skipping each branch.
    """

    keep_probability: Tensor

    def __init__(self, rates: Sequence[float]):
        super().__init__()
        probability = 1.0 - torch.tensor(rates, dtype=torch.float64)
        self.register_buffer("keep_probability", probability.float()[:, None], persistent=False)

    def forward(self, keep: Bool[Tensor, "branch image"]) -> Float[Tensor, "branch image"]:
        """One factor for each branch and image."""
        return keep / self.keep_probability


def add_branch(
    tokens: Float[Tensor, "image token width"],
    branch: Float[Tensor, "image token width"],
    scale: Float[Tensor, " image"] | None,
) -> Float[Tensor, "image token width"]:
    """The tokens plus a branch, scaled per image."""
    return tokens + (branch if scale is None else branch * scale[:, None, None])
