"""Self-attention that adds what it has learnt of two patches' relative position (BEiT, Bao et al., 2106.08254)."""

import torch
from jaxtyping import Float
from timm.layers.pos_embed_rel import gen_relative_position_index
from torch import Tensor, nn

from caev2.pretrain.student.encoder import SelfAttention

_CLASS_ROWS = 3
"""The class token has no place: one row for class to patch, one for patch to class, one for class to class."""


def table_rows(grid_size: int) -> int:
    """Relative positions on a square grid, and those of the class token: 732 for 14 × 14 patches."""
    return (2 * grid_size - 1) ** 2 + _CLASS_ROWS


class BiasedAttention(SelfAttention):
    """Self-attention with a bias of every head for every relative position of query and key, zero at first.

    So at its start it computes what `SelfAttention` does.

    Args:
        width: Of a token.
        heads: Attention heads.
        grid_size: Patches along one side of the image.
    """

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, grid_size: int):
        super().__init__(width, heads)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(table_rows(grid_size), heads))
        index = gen_relative_position_index((grid_size, grid_size), class_token=True)
        self.register_buffer("relative_position_index", index, persistent=False)  # it follows from the grid

    def forward(
        self, tokens: Float[Tensor, "image token width"], bias: Float[Tensor, "head token token"] | None = None
    ) -> Float[Tensor, "image token width"]:
        """Attention of every token to every token."""
        learnt = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        return super().forward(tokens, learnt if bias is None else learnt + bias)
