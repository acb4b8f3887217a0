"""A transformer as probes see it: all tokens at the end, and at the output of any block, in one pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import layer_norm

Pooled = dict[str, Float[Tensor, "image width"]]
Tokens = Float[Tensor, "image token width"]

LAST_BLOCKS = 4
"""Whose class tokens a linear head may see together, as in the evaluations of DINO and DINOv2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """Something that turns crops into tokens, the class token first."""

    depth: int
    """Blocks whose outputs can be read; 0: none."""
    read: Callable[[UInt8[Tensor, "image size size 3"], Sequence[int]], tuple[Tokens, list[Tokens]]]
    """Tokens at the end, and at the outputs of some blocks, counted from 1 and before any final norm."""

    def pool(self, crops: UInt8[Tensor, "image size size 3"]) -> Pooled:
        """One vector an image, in several ways."""
        return self.pool_and_keep(crops)[0]

    def pool_and_keep(self, crops: UInt8[Tensor, "image size size 3"]) -> tuple[Pooled, Tokens]:
        """The same, with the tokens at the end."""
        earlier = [self.depth - back for back in range(1, min(LAST_BLOCKS, self.depth))]
        tokens, outputs = self.read(crops, earlier)
        pooled = {"class": tokens[:, 0], "mean": tokens[:, 1:].mean(1)}
        for number, output in zip(earlier, outputs, strict=True):
            pooled[f"class of block {number}"] = normalise_tokens(output[:, 0])
        return pooled, tokens

    def poolings(self) -> dict[str, tuple[str, ...]]:
        """What a linear head may look at, by name: the parts of `pool` that are put side by side."""
        single = {"class": ("class",), "mean": ("mean",), "class+mean": ("class", "mean")}
        earlier = tuple(f"class of block {self.depth - back}" for back in range(1, min(LAST_BLOCKS, self.depth)))
        if not earlier:
            return single
        several = f"class of last {1 + len(earlier)}"
        return {**single, several: ("class", *earlier), f"{several}+mean": ("class", *earlier, "mean")}


def normalise_tokens(tokens: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape width"]:
    """As a final norm would leave them, but for its gains and offsets: probes standardise every channel anyway."""
    return layer_norm(tokens.to(torch.float32), tokens.shape[-1:], eps=1e-6)
