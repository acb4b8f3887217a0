"""The model that is fine-tuned: an encoder, the mean of its patches, a norm and a linear head."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from caev2.eval.finetuning.attention import BiasedAttention
from caev2.pretrain.learning.step import IMAGENET_MEAN, IMAGENET_STD
from caev2.pretrain.student.encoder import Encoder
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.supply.keep import drop_path_rates

HEAD_STD = 0.02
"""Of the head's truncated normal start, as published, before it is scaled down."""

Channels = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """What is put below a head, with its weights."""

    encoder: nn.Module
    """From images and keep bits to all tokens, class token first, before the final norm. Its blocks are `blocks`."""
    norm: nn.LayerNorm
    """The final norm, which is applied to the mean of the patches."""
    depth: int
    """Blocks of the encoder."""
    image_px: int
    """Side of the images it takes."""
    rates: tuple[float, ...] = ()
    """Probability of skipping each residual branch, two for every block; none: drop path does not apply."""
    sizes: ModelSettings | None = None
    """Of a student, at the size of image that it is tuned at."""
    has_position_bias: bool = False
    """Whether biases of relative positions are learnt."""
    mean: Channels = IMAGENET_MEAN
    """Subtracted from the RGB channels, in units of 0 .. 1."""
    std: Channels = IMAGENET_STD


class FineTuner(nn.Module):
    """Scores of classes, from the mean of the patch tokens.

    Args:
        backbone: Encoder and final norm, which become part of this model.
        classes: How many there are.
        head_scale: Factor on the fresh weights of the head: so small that scores begin as good as equal.
        seed: Of those weights.
    """

    def __init__(self, backbone: Backbone, classes: int, *, head_scale: float, seed: int):
        super().__init__()
        self.encoder, self.fc_norm = backbone.encoder, backbone.norm
        with torch.random.fork_rng(devices=[]):  # layers draw from the global generator when they are made
            self.head = nn.Linear(backbone.norm.normalized_shape[0], classes)
        nn.init.trunc_normal_(self.head.weight, std=HEAD_STD, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            self.head.weight.mul_(head_scale)

    def forward(
        self, images: Float[Tensor, "image 3 height width"], keep: Bool[Tensor, "branch image"] | None = None
    ) -> Float[Tensor, "image class"]:
        """Scores of the classes, not normalised.

        Args:
            images: Normalised as the backbone says.
            keep: Which residual branches are kept; none: all of them, unscaled.
        """
        return self.head(self.pool(images, keep))

    def pool(
        self, images: Float[Tensor, "image 3 height width"], keep: Bool[Tensor, "branch image"] | None = None
    ) -> Float[Tensor, "image latent"]:
        """What the head sees: the mean of the patch tokens, normed. The class token takes part in attention only."""
        return self.fc_norm(self.encoder(images, keep=keep)[:, 1:].mean(dim=1))


def tunable_encoder(
    trained: Encoder,
    sizes: ModelSettings,
    *,
    image_px: int | None,
    drop_path: float,
    position_bias: bool,
) -> Backbone:
    """A student's encoder, made for fine-tuning.

    Positions are a function of the grid: at another size of the image they are computed anew, and not interpolated.

    Args:
        trained: Whose weights are copied.
        sizes: Of that student.
        image_px: Side of the images; none: the student's own.
        drop_path: Probability of skipping a branch of the last block.
        position_bias: Whether each block learns a bias for relative positions.
    """
    image_px = image_px or sizes.image_px
    encoder = Encoder(
        image_px=image_px,
        patch_px=sizes.patch_px,
        width=sizes.width,
        depth=sizes.depth,
        heads=sizes.heads,
        mlp_ratio=sizes.mlp_ratio,
        layer_scale=sizes.layer_scale,
        drop_path=drop_path,
    )
    weights = {name: tensor for name, tensor in trained.state_dict().items() if name != "pos_embed"}
    encoder.load_state_dict({"pos_embed": encoder.pos_embed.data, **weights})
    if position_bias:
        _learn_biases(encoder, sizes, image_px // sizes.patch_px)
    norm = encoder.norm
    encoder.add_module("norm", nn.Identity())
    return Backbone(
        encoder=encoder,
        norm=norm,
        depth=sizes.depth,
        image_px=image_px,
        sizes=replace(sizes, image_px=image_px),
        rates=drop_path_rates(sizes.depth, drop_path),
        has_position_bias=position_bias,
    )


def _learn_biases(encoder: Encoder, sizes: ModelSettings, grid_size: int) -> None:
    for block in encoder.blocks:
        biased = BiasedAttention(sizes.width, sizes.heads, grid_size)
        biased.load_state_dict(block.get_submodule("attn").state_dict(), strict=False)  # but for the bias, which is 0
        block.add_module("attn", biased)
