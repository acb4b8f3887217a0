"""The same token counts through stock timm blocks, forward and backward and no more: what a student costs at least.

An encoder over the class token and the visible patches, timm blocks of the regressor's width and depth over the masked
ones, the head on all. No targets, no drop path, no optimiser.
"""

from functools import partial

import torch
from jaxtyping import Float
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from caev2.pretrain.foresight.cost import count_multiply_adds
from caev2.pretrain.student.sizes import ModelSettings

NORM = partial(nn.LayerNorm, eps=1e-6)


class BareStudent(nn.Module):
    """Encoder, blocks in the regressor's place, head."""

    def __init__(self, settings: ModelSettings, masked: int):
        super().__init__()
        width, narrow = settings.width, settings.regressor_width
        self.visible, self.masked = settings.patches - masked, masked
        self.patch_embed = PatchEmbed(settings.image_px, settings.patch_px, embed_dim=width)
        self.cls_token, self.mask_token = (nn.Parameter(torch.zeros(1, 1, size)) for size in (width, narrow))
        self.encoder = _blocks(width, settings.heads, settings.depth, settings.mlp_ratio)
        self.norm = NORM(width)
        self.projection = nn.Identity() if width == narrow else nn.Sequential(nn.Linear(width, narrow), NORM(narrow))
        self.regressor = _blocks(narrow, settings.regressor_heads, settings.regressor_depth, settings.mlp_ratio)
        self.head = nn.Sequential(NORM(narrow), nn.Linear(narrow, settings.target_width))

    def forward(self, images: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image token target_width"]:
        """As many outputs as the student has."""
        patches = self.patch_embed(images)[:, : self.visible]
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)
        seen = self.projection(self.norm(self.encoder(tokens)))
        regressed = self.regressor(self.mask_token.expand(len(images), self.masked, -1))
        return self.head(torch.cat([seen, regressed], dim=1))


def share_of_student(settings: ModelSettings, masked: int) -> float:
    """Multiply-adds of this over those of the student, whose regressor has keys and values of all patches."""
    student, width = count_multiply_adds(settings, masked), settings.regressor_width
    block = masked * (4 + 2 * settings.mlp_ratio) * width**2 + 2 * masked**2 * width
    return (student.total - student.regressor + settings.regressor_depth * block) / student.total


def _blocks(width: int, heads: int, depth: int, mlp_ratio: float) -> nn.Sequential:
    return nn.Sequential(
        *(
            Block(width, heads, mlp_ratio, qkv_bias=True, init_values=0.1, norm_layer=NORM)  # pyright: ignore[reportArgumentType]
            for _ in range(depth)
        )
    )


def forward_backward(model: BareStudent, images: Float[Tensor, "image 3 size size"], *, fused: bool) -> None:
    """One pass, in the plain loop's precision; attention on torch's fused kernels, or not."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused  # pyright: ignore[reportArgumentType]
    model.zero_grad(set_to_none=True)
    with torch.autocast(images.device.type, torch.float16, enabled=images.device.type == "cuda"):
        output = model(images)
    output.float().square().mean().backward()
