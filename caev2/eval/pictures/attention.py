"""How much the class token attends to every token, head by head."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from caev2.pretrain.student.encoder import Encoder, SelfAttention


def class_attention(
    encoder: Encoder, images: Float[Tensor, "image 3 height width"], block: int = -1
) -> Float[Tensor, "image head token"]:
    """Weights of the class token's attention; those of a head sum to 1.

    The encoder attends with a fused kernel that keeps no weights, so they are computed once more from what enters the
    block.

    Args:
        encoder: With all patches visible.
        images: Normalised.
        block: Which block, as an index; the last by default.
    """
    entering: list[Tensor] = []
    chosen: SelfAttention = encoder.blocks[block].attn  # type: ignore[assignment]
    hook = chosen.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    try:
        encoder(images)
    finally:
        hook.remove()
    return weights_of_first(chosen, entering[0])


def weights_of_first(
    attention: SelfAttention, tokens: Float[Tensor, "image token width"]
) -> Float[Tensor, "image head token"]:
    """How the first token's attention is spread over all tokens."""
    mixed = functional.linear(tokens, attention.qkv.weight, attention.qkv.bias * attention.bias_mask)
    query, key, _ = mixed.unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
    scores = torch.einsum("ihc,ihtc->iht", query[:, :, 0], key)
    return (scores / query.shape[-1] ** 0.5).softmax(dim=-1)
