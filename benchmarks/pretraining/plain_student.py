"""The student as plain eager PyTorch: the same method as `caev2.pretrain.student.model`, without any of its speed.

Written from a description of the method (Zhang et al., 2211.09799), to be timed against. Nothing is fused: attention is
two products and a softmax, the biases of query and value are put together in every forward pass, patches are chosen by
boolean indexing, drop path draws its own bits. Parameters have their published names, so `to_official` of a `CAEv2` is
a state dict of this.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn
from torch.nn import functional

from caev2.pretrain.student.positions import position_table
from caev2.pretrain.student.sizes import ModelSettings

NORM_EPSILON = 1e-6


def select(
    tokens: Float[Tensor, "image patch width"], chosen: Bool[Tensor, "image patch"]
) -> Float[Tensor, "image taken width"]:
    """The chosen tokens of every image, in row-major order; each image has as many."""
    return tokens[chosen].reshape(len(tokens), -1, tokens.shape[-1])


class Attention(nn.Module):
    """Softmax of the products, times the values; where queries come from other tokens, three matrices."""

    def __init__(self, width: int, heads: int, *, cross: bool):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        if cross:
            self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        else:
            self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).permute(0, 2, 1, 3)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """By heads."""
        query, key, value = self._split(query), self._split(key), self._split(value)
        weights = ((query * self.scale) @ key.transpose(-2, -1)).softmax(dim=-1)
        gathered = (weights @ value).transpose(1, 2)
        return self.proj(gathered.reshape(*gathered.shape[:2], -1))


class SelfAttention(Attention):
    """Of every token to every token."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, heads, cross=False)

    def forward(self, tokens: Float[Tensor, "image token width"]) -> Float[Tensor, "image token width"]:
        """What each token gathers."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias, requires_grad=False), self.v_bias])
        return self.attend(*functional.linear(tokens, self.qkv.weight, bias).chunk(3, dim=-1))


class CrossAttention(Attention):
    """Of the masked states to all patches."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, heads, cross=True)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Float[Tensor, "image masked width"]:
        """What each query gathers."""
        return self.attend(
            functional.linear(query, self.q.weight, self.q_bias),
            functional.linear(key, self.k.weight),
            functional.linear(value, self.v.weight, self.v_bias),
        )


class EncoderBlock(nn.Module):
    """Pre-norm attention and MLP, layer scale, drop path."""

    def __init__(self, settings: ModelSettings, drop: float):
        super().__init__()
        width = settings.width
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=NORM_EPSILON) for _ in range(2))
        self.attn = SelfAttention(width, settings.heads)
        self.mlp = Mlp(width, int(width * settings.mlp_ratio))
        self.gamma_1, self.gamma_2 = (nn.Parameter(torch.ones(width)) for _ in range(2))
        self.drop_path = DropPath(drop) if drop else nn.Identity()

    def forward(self, tokens: Float[Tensor, "image token width"]) -> Float[Tensor, "image token width"]:
        """The tokens after this block."""
        tokens = tokens + self.drop_path(self.gamma_1 * self.attn(self.norm1(tokens)))
        return tokens + self.drop_path(self.gamma_2 * self.mlp(self.norm2(tokens)))


class Encoder(nn.Module):
    """A vision transformer over the class token and the visible patches."""

    def __init__(self, settings: ModelSettings):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, settings.width))
        self.pos_embed = nn.Parameter(position_table(settings.grid_size, settings.width), requires_grad=False)
        self.patch_embed = PatchEmbed(settings.image_px, settings.patch_px, embed_dim=settings.width)
        drops = np.linspace(0, settings.drop_path, settings.depth)
        self.blocks = nn.ModuleList(EncoderBlock(settings, float(drop)) for drop in drops)
        self.norm = nn.LayerNorm(settings.width, eps=NORM_EPSILON)

    def forward(
        self, images: Float[Tensor, "image 3 size size"], mask: Bool[Tensor, "image patch"]
    ) -> Float[Tensor, "image token width"]:
        """Latents of the class token and the visible patches."""
        positions = self.pos_embed.expand(len(images), -1, -1)
        seen = select(self.patch_embed(images), ~mask) + select(positions[:, 1:], ~mask)
        class_token = self.cls_token.expand(len(images), -1, -1) + positions[:, :1]
        tokens = torch.cat([class_token, seen], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class RegressorBlock(nn.Module):
    """Cross-attention from the masked states; the residual goes on from the normalised state."""

    def __init__(self, settings: ModelSettings, drop: float):
        super().__init__()
        width = settings.regressor_width
        self.norm1_q, self.norm1_k, self.norm1_v, self.norm2_cross = (
            nn.LayerNorm(width, eps=NORM_EPSILON) for _ in range(4)
        )
        self.cross_attn = CrossAttention(width, settings.regressor_heads)
        self.mlp_cross = Mlp(width, int(width * settings.mlp_ratio))
        self.gamma_1_cross, self.gamma_2_cross = (nn.Parameter(torch.ones(width)) for _ in range(2))
        self.drop_path = DropPath(drop) if drop else nn.Identity()

    def forward(self, masked: Tensor, visible: Tensor, masked_positions: Tensor, positions: Tensor) -> Tensor:
        """The masked states after this block."""
        patches = torch.cat([visible, masked], dim=1)
        query, key = self.norm1_q(masked + masked_positions), self.norm1_k(patches + positions)
        attended = self.cross_attn(query, key, self.norm1_v(patches))
        masked = self.norm2_cross(masked + self.drop_path(self.gamma_1_cross * attended))
        return masked + self.drop_path(self.gamma_2_cross * self.mlp_cross(masked))


class PlainStudent(nn.Module):
    """Encoder, regressor and head. Its weights come from a state dict under published names."""

    rd_pos_embed: Tensor

    def __init__(self, settings: ModelSettings):
        super().__init__()
        width, self.narrows = settings.regressor_width, settings.regressor_width != settings.width
        self.encoder = Encoder(settings)
        if self.narrows:
            self.encoder_to_regresser = nn.Linear(settings.width, width)
            self.encoder_to_regresser_norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("rd_pos_embed", position_table(settings.grid_size, width), persistent=False)
        drops = np.linspace(0, settings.drop_path, settings.regressor_depth)
        blocks = nn.ModuleList(RegressorBlock(settings, float(drop)) for drop in drops)
        self.regresser = nn.ModuleDict({"regressor_blocks": blocks})
        norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.decoder = nn.ModuleDict({"norm": norm, "head": nn.Linear(width, settings.target_width)})

    def forward(
        self, images: Float[Tensor, "image 3 size size"], mask: Bool[Tensor, "image patch"]
    ) -> Float[Tensor, "image token target_width"]:
        """Unit vectors in the order class token, visible patches, masked patches."""
        seen = self.encoder(images, mask)
        if self.narrows:
            seen = self.encoder_to_regresser_norm(self.encoder_to_regresser(seen))
        positions = self.rd_pos_embed[:, 1:].expand(len(images), -1, -1)
        masked_positions = select(positions, mask)
        positions = torch.cat([select(positions, ~mask), masked_positions], dim=1)
        states = self.mask_token.expand(*masked_positions.shape[:2], -1)
        for block in self.regresser["regressor_blocks"]:  # pyright: ignore[reportGeneralTypeIssues]
            states = block(states, seen[:, 1:], masked_positions, positions)
        predicted = self.decoder["head"](self.decoder["norm"](torch.cat([seen, states], dim=1)))
        return predicted / predicted.norm(dim=-1, keepdim=True)


def plain_targets(
    latents: Float[Tensor, "image token width"], mask: Bool[Tensor, "image patch"]
) -> Float[Tensor, "image token width"]:
    """The teacher's latents as unit vectors, in the order of the predictions."""
    latents = latents / latents.norm(dim=-1, keepdim=True)
    patches = latents[:, 1:]
    return torch.cat([latents[:, :1], select(patches, ~mask), select(patches, mask)], dim=1)


def plain_loss(
    predicted: Float[Tensor, "image token width"], targets: Float[Tensor, "image token width"]
) -> Float[Tensor, ""]:
    """The cosine embedding loss of torch itself, over all tokens."""
    predicted, targets = predicted.flatten(0, 1).float(), targets.flatten(0, 1).float()
    return functional.cosine_embedding_loss(predicted, targets, torch.ones(len(predicted), device=predicted.device))
