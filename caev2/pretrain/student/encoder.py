"""The student's encoder: a timm `VisionTransformer` in structure and parameter names.

A stock timm model of the same sizes loads `state_dict()` as it is and gives the same features. What is added
here is what pre-training needs: only visible patches enter, keys have no bias, and drop path follows given
bits.
"""

import torch
from jaxtyping import Bool, Float, Int
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn
from torch.nn import functional

from caev2.pretrain.student.positions import position_table
from caev2.pretrain.student.residual import UNSCALED, BlockScales, DropPath, LayerScale, add_branch, run_block
from caev2.pretrain.student.tokens import take_tokens
from caev2.pretrain.supply.keep import drop_path_rates

NORM_EPSILON = 1e-6
"""Of every layer norm, in encoder, regressor and head, as published."""


class SelfAttention(nn.Module):
    """Multi-head self-attention in timm's names, whose key third of `qkv.bias` is zero for ever.

    The published model has a query and a value bias only. timm's has one bias for all three; multiplying it
    with 1/0/1 keeps the key's third out of the result and gives it a gradient of exactly zero.
    """

    bias_mask: Tensor

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        mask = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(width)
        self.register_buffer("bias_mask", mask, persistent=False)

    def forward(
        self, tokens: Float[Tensor, "image token width"], bias: Float[Tensor, "head token token"] | None = None
    ) -> Float[Tensor, "image token width"]:
        """Attention of every token to every token.

        Args:
            tokens: All of them.
            bias: Added to the scores of queries and keys; none, as in pre-training: nothing is.
        """
        mixed = functional.linear(tokens, self.qkv.weight, self.qkv.bias * self.bias_mask)
        query, key, value = mixed.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        added = None if bias is None else bias.to(query.dtype)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=added)
        return self.proj(attended.transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    """A pre-norm transformer block in timm's names."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, layer_scale: float | None):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.attn = SelfAttention(width, heads)
        self.ls1 = None if layer_scale is None else LayerScale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.ls2 = None if layer_scale is None else LayerScale(width, layer_scale)

    def forward(
        self,
        tokens: Float[Tensor, "image token width"],
        scales: BlockScales = UNSCALED,
    ) -> Float[Tensor, "image token width"]:
        """Attention, then MLP, each scaled per image where drop path is on."""
        tokens = add_branch(tokens, self.attn(self.norm1(tokens)), self.ls1, scales.attention)
        return add_branch(tokens, self.mlp(self.norm2(tokens)), self.ls2, scales.mlp)


class Encoder(nn.Module):
    """A vision transformer over the class token and the visible patches.

    Args:
        image_px: Side of the square image.
        patch_px: Side of a square patch.
        width: Width of a latent.
        depth: Blocks.
        heads: Attention heads.
        mlp_ratio: Hidden width of an MLP over `width`.
        layer_scale: What layer scales start from; none: no layer scale.
        drop_path: Probability of skipping a branch of the last block.
    """

    def __init__(
        self,
        *,
        image_px: int,
        patch_px: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(position_table(image_px // patch_px, width), requires_grad=False)
        self.patch_embed = PatchEmbed(image_px, patch_px, embed_dim=width)
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, mlp_ratio, layer_scale) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.drop_path = DropPath(drop_path_rates(depth, drop_path))
        self.recompute = False

    def forward(
        self,
        images: Float[Tensor, "image 3 height width"],
        visible: Int[Tensor, "image visible"] | None = None,
        keep: Bool[Tensor, "branch image"] | None = None,
    ) -> Float[Tensor, "image token latent"]:
        """Latents of the class token and the visible patches, after the final norm.

        Args:
            images: Normalised as the recipe says.
            visible: Indices of the patches that enter; none: all of them, in row-major order.
            keep: Which of the 2 × depth branches are kept; none: all of them, unscaled.
        """
        patches = self.patch_embed(images) + self.pos_embed[:, 1:]
        if visible is not None:
            patches = take_tokens(patches, visible)
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(images), -1, -1)
        tokens = torch.cat([class_token, patches], dim=1)
        for block, scales in zip(self.blocks, self.drop_path(keep), strict=True):
            tokens = run_block(block, tokens, scales, recompute=self.recompute)
        return self.norm(tokens)
