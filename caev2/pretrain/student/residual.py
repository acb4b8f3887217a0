"""Residual blocks: what their branches are multiplied with, by learning and by drop path, and how they are run."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class LayerScale(nn.Module):
    """A learnt factor for every channel of a branch, in timm's names."""

    def __init__(self, width: int, start: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self) -> Float[Tensor, " width"]:
        """The factors; `add_branch` multiplies with them."""
        return self.gamma


class BlockScales(NamedTuple):
    """What the two branches of a block are multiplied with, image by image; none: with one."""

    attention: Float[Tensor, " image"] | None = None
    mlp: Float[Tensor, " image"] | None = None


UNSCALED = BlockScales()
"""Drop path is off."""


class DropPath(nn.Module):
    """Turns keep bits into what each branch is multiplied with: 0, or one over the probability of being kept.

    The bits are given, never drawn here, so that a step is a function of its inputs.

    Args:
        rates: The probability of skipping each branch, two for every block.
    """

    keep_probability: Tensor

    def __init__(self, rates: Sequence[float]):
        super().__init__()
        probability = 1.0 - torch.tensor(rates, dtype=torch.float64)
        self.register_buffer("keep_probability", probability.float()[:, None], persistent=False)

    def forward(self, keep: Bool[Tensor, "branch image"] | None) -> list[BlockScales]:
        """The factors of every block; without bits, all branches are kept and none is scaled."""
        if keep is None:
            return [UNSCALED] * (len(self.keep_probability) // 2)
        factors = (keep / self.keep_probability).unbind()
        return [BlockScales(*pair) for pair in zip(factors[::2], factors[1::2], strict=True)]


def add_branch(
    tokens: Float[Tensor, "image token width"],
    branch: Float[Tensor, "image token width"],
    layer_scale: LayerScale | None,
    scale: Float[Tensor, " image"] | None,
) -> Float[Tensor, "image token width"]:
    """The tokens plus a branch, scaled per channel and per image: in one pass over them, and one for each gradient."""
    per_image = None if scale is None else scale[:, None, None]
    if layer_scale is None:
        return tokens + branch if per_image is None else torch.addcmul(tokens, branch, per_image)
    gamma = layer_scale()
    return torch.addcmul(tokens, branch, gamma if per_image is None else per_image * gamma)


def run_block(block: nn.Module, *inputs: Any, recompute: bool) -> Tensor:
    """What a block gives; with `recompute`, its inner activations are not kept but computed again for the gradient."""
    if not recompute:
        return block(*inputs)
    # nothing in a block draws random numbers, so there is no generator to put back
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)  # type: ignore[return-value]
