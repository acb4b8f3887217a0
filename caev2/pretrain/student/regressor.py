"""The latent regressor: what the masked patches' latents must be, given the visible ones."""

import torch
from jaxtyping import Bool, Float, Int
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional

from caev2.pretrain.student.encoder import NORM_EPSILON
from caev2.pretrain.student.positions import position_table
from caev2.pretrain.student.residual import UNSCALED, BlockScales, DropPath, LayerScale, add_branch, run_block
from caev2.pretrain.supply.keep import drop_path_rates


class CrossAttention(nn.Module):
    """Multi-head attention from queries to separate keys and values; keys have no bias, as published."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        query: Float[Tensor, "image masked width"],
        key: Float[Tensor, "image patch width"],
        value: Float[Tensor, "image patch width"],
    ) -> Float[Tensor, "image masked width"]:
        """What each query gathers from the values."""
        query, key, value = self._split(self.q(query)), self._split(self.k(key)), self._split(self.v(value))
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).flatten(2))

    def _split(self, tokens: Float[Tensor, "image token width"]) -> Float[Tensor, "image head token part"]:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class RegressorBlock(nn.Module):
    """Cross-attention from the masked states to all patches, then an MLP.

    Positions are added to queries and keys, not to values, and the residual goes on from the *normalised*
    state (`norm2`): this is no pre-norm block.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, layer_scale: float | None):
        super().__init__()
        self.norm_q, self.norm_k, self.norm_v, self.norm2 = (nn.LayerNorm(width, eps=NORM_EPSILON) for _ in range(4))
        self.attn = CrossAttention(width, heads)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.ls1 = _layer_scale(width, layer_scale)
        self.ls2 = _layer_scale(width, layer_scale)

    def forward(
        self,
        masked: Float[Tensor, "image masked width"],
        visible: Float[Tensor, "image visible width"],
        masked_positions: Float[Tensor, "image masked width"],
        positions: Float[Tensor, "image patch width"],
        scales: BlockScales = UNSCALED,
    ) -> Float[Tensor, "image masked width"]:
        """The masked states after this block; `positions` belong to visible, then masked patches."""
        patches = torch.cat([visible, masked], dim=1)
        attended = self.attn(
            self.norm_q(masked + masked_positions), self.norm_k(patches + positions), self.norm_v(patches)
        )
        masked = self.norm2(add_branch(masked, attended, self.ls1, scales.attention))
        return add_branch(masked, self.mlp(masked), self.ls2, scales.mlp)


def _layer_scale(width: int, start: float | None) -> LayerScale:
    """A layer scale; without a start it is one and stays one, as the published code has it."""
    scale = LayerScale(width, 1.0 if start is None else start)
    return scale.requires_grad_(start is not None)


class Regressor(nn.Module):
    """Cross-attention blocks that start from one learnable mask token at every masked patch.

    Args:
        grid_size: Patches along one side of the image.
        width: Width of a latent.
        depth: Blocks.
        heads: Attention heads.
        mlp_ratio: Hidden width of an MLP over `width`.
        layer_scale: What layer scales start from; none: fixed at one.
        drop_path: Probability of skipping a branch of the last block.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        grid_size: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("positions", position_table(grid_size, width)[0, 1:], persistent=False)
        self.blocks = nn.ModuleList(RegressorBlock(width, heads, mlp_ratio, layer_scale) for _ in range(depth))
        self.drop_path = DropPath(drop_path_rates(depth, drop_path))
        self.recompute = False

    def forward(
        self,
        latents: Float[Tensor, "image visible width"],
        visible: Int[Tensor, "image visible"],
        masked: Int[Tensor, "image masked"],
        keep: Bool[Tensor, "branch image"] | None = None,
    ) -> Float[Tensor, "image masked width"]:
        """Latents of the masked patches.

        Args:
            latents: Of the visible patches; the class token takes no part.
            visible: Indices of the visible patches.
            masked: Indices of the masked ones.
            keep: Which of the 2 × depth branches are kept; none: all of them, unscaled.
        """
        masked_positions = self.positions[masked]
        positions = torch.cat([self.positions[visible], masked_positions], dim=1)
        states = self.mask_token.expand(*masked.shape, -1)
        for block, scales in zip(self.blocks, self.drop_path(keep), strict=True):
            states = run_block(block, states, latents, masked_positions, positions, scales, recompute=self.recompute)
        return states
