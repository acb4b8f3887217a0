"""The student of CAE v2: encoder, regressor and one head for all tokens (Zhang et al., 2211.09799)."""

from collections import OrderedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from caev2.pretrain.student.encoder import NORM_EPSILON, Encoder, SelfAttention
from caev2.pretrain.student.regressor import Regressor
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.supply.keep import drop_path_rates

TOKEN_STD = 0.02
"""Of class token, mask token and patch embedding before both tails are cut at one standard deviation."""


class CAEv2(nn.Module):
    """Predicts the teacher's latent of every token from the visible patches alone.

    The weights are uninitialised until `build` or a checkpoint fills them.
    """

    def __init__(self, settings: ModelSettings):
        super().__init__()
        self.settings = settings
        self.encoder = Encoder(
            image_px=settings.image_px,
            patch_px=settings.patch_px,
            width=settings.width,
            depth=settings.depth,
            heads=settings.heads,
            mlp_ratio=settings.mlp_ratio,
            layer_scale=settings.layer_scale,
            drop_path=settings.drop_path,
        )
        self.projection = _projection(settings.width, settings.regressor_width)
        self.regressor = _regressor(settings)
        self.head = nn.Sequential(
            OrderedDict(
                norm=nn.LayerNorm(settings.regressor_width, eps=NORM_EPSILON),
                linear=nn.Linear(settings.regressor_width, settings.target_width),
            )
        )

    def forward(
        self,
        images: Float[Tensor, "image 3 height width"],
        visible: Int[Tensor, "image visible"],
        masked: Int[Tensor, "image masked"],
        keep: Bool[Tensor, "branch image"] | None = None,
    ) -> Float[Tensor, "image token target_width"]:
        """Predicted latents, not normalised, in the order class token, visible patches, masked patches.

        Without a regressor, of the class token and the visible patches alone.

        Args:
            images: Normalised as the recipe says.
            visible: Indices of the visible patches, sorted.
            masked: Indices of the masked patches, sorted.
            keep: Which branches are kept, as `keep_bits` draws them for `branch_rates`; none: no drop path.
        """
        keep_encoder, keep_regressor = (None, None) if keep is None else self._split(keep)
        seen = self.projection(self.encoder(images, visible, keep_encoder))
        if self.regressor is None:
            return self.head(seen)
        regressed = self.regressor(seen[:, 1:], visible, masked, keep_regressor)
        return self.head(torch.cat([seen, regressed], dim=1))

    def recompute_activations(self) -> None:
        """Keep only what goes into each block, and compute the rest again for the gradient."""
        for part in (self.encoder, self.regressor):
            if part is not None:
                part.recompute = True

    def _split(
        self, keep: Bool[Tensor, "branch image"]
    ) -> tuple[Bool[Tensor, "encoder_branch image"], Bool[Tensor, "regressor_branch image"]]:
        branches = 2 * self.settings.depth
        return keep[:branches], keep[branches:]


def _projection(width: int, regressor_width: int) -> nn.Module:
    """From the encoder's width to the regressor's, where they differ."""
    if width == regressor_width:
        return nn.Identity()
    return nn.Sequential(
        OrderedDict(linear=nn.Linear(width, regressor_width), norm=nn.LayerNorm(regressor_width, eps=NORM_EPSILON))
    )


def _regressor(settings: ModelSettings) -> Regressor | None:
    if settings.regressor_depth == 0:
        return None
    return Regressor(
        grid_size=settings.grid_size,
        width=settings.regressor_width,
        depth=settings.regressor_depth,
        heads=settings.regressor_heads,
        mlp_ratio=settings.mlp_ratio,
        layer_scale=settings.regressor_layer_scale,
        drop_path=settings.drop_path,
    )


def branch_rates(settings: ModelSettings) -> tuple[float, ...]:
    """The drop-path rate of every branch: two for each block of the encoder, then of the regressor."""
    encoder = drop_path_rates(settings.depth, settings.drop_path)
    return encoder + drop_path_rates(settings.regressor_depth, settings.drop_path)


def build(settings: ModelSettings, seed: int) -> CAEv2:
    """A student with fresh weights that are a function of the seed alone.

    Linear layers: Xavier-uniform (the fused query-key-value matrix as one), bias 0. Layer norms: 1 and 0.
    Class token, mask token and patch embedding: normal of deviation 0.02, both tails cut there, which leaves
    0.0108. This is what the published code ends with, not the scaled BEiT initialisation it begins with.
    """
    with torch.random.fork_rng(devices=[]):  # the layers draw from the global generator when they are made
        model = CAEv2(settings)
    # each part has a generator of its own, so that another regressor leaves encoder and head as they are
    for number, part in enumerate((model.encoder, model.projection, model.regressor, model.head)):
        if part is not None:
            _initialise(part, torch.Generator().manual_seed(_PARTS * seed + number))
    return model


_PARTS = 4


def _initialise(part: nn.Module, generator: torch.Generator):
    for module in part.modules():
        _initialise_layer(module, generator)
    token = {Encoder: "cls_token", Regressor: "mask_token"}.get(type(part))
    if token is not None:
        _cut_normal(part.get_parameter(token), generator)


def _initialise_layer(module: nn.Module, generator: torch.Generator):
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight, generator=generator)
    elif isinstance(module, nn.Conv2d):
        _cut_normal(module.weight, generator)
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _cut_normal(tensor: Tensor, generator: torch.Generator):
    nn.init.trunc_normal_(tensor, std=TOKEN_STD, a=-TOKEN_STD, b=TOKEN_STD, generator=generator)


def count_parameters(model: CAEv2, *, key_bias: bool = True) -> int:
    """How many numbers are trained; `key_bias=False` leaves the constant zeros of `qkv.bias` out.

    Published counts leave them out, and add the two vectors of a norm in the regressor that no token passes.
    """
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if key_bias:
        return trained
    attentions = (module for module in model.modules() if isinstance(module, SelfAttention))
    return trained - sum(attention.proj.bias.numel() for attention in attentions)
