"""Choosing tokens: each image its own."""

from jaxtyping import Float, Int
from torch import Tensor


def take_tokens(
    tokens: Float[Tensor, "image token width"], indices: Int[Tensor, "image taken"]
) -> Float[Tensor, "image taken width"]:
    """The tokens of each image at that image's indices, in their order."""
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[-1]))
