"""Which stock timm model a student's encoder is, and under which names its tensors are there.

A `VisionTransformer` of timm computes what the encoder computes: fixed positions are its `pos_embed`, layer scales its
`ls1` and `ls2`, and its bias of queries, keys and values has zeros in the middle. A fine-tuned classifier with relative
positions is timm's `Beit`, with positions added to the patches as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from caev2.errors import CheckpointError
from caev2.eval.run import RESIZE_RATIO
from caev2.pretrain.student.sizes import ModelSettings

_STOCK = {
    192: "vit_tiny_patch16_224",
    384: "vit_small_patch16_224",
    768: "vit_base_patch16_224",
    1024: "vit_large_patch16_224",
}
_STOCK_SIZES = {
    "vit_tiny_patch16_224": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "vit_small_patch16_224": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit_base_patch16_224": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit_large_patch16_224": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "beit_base_patch16_224": {"embed_dim": 768, "depth": 12, "num_heads": 12},
}
"""What a name stands for in timm; all have patches of 16 pixels, images of 224 and an MLP ratio of 4."""
_FOR_OTHERS, _WITH_RELATIVE_POSITIONS = "vit_base_patch16_224", "beit_base_patch16_224"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmModel:
    """A model of stock timm: what it is called, with what, and its tensors."""

    architecture: str
    arguments: dict[str, Any]
    """Of `timm.create_model`, beside the name: where it differs from what the name stands for."""
    tensors: dict[str, Tensor]
    image_px: int
    resize_px: int
    """Short side of the images before the centre crop."""
    output: str
    """What comes out: `tokens` of `forward_features`, or `logits` of a classifier."""

    @property
    def data_config(self) -> dict[str, Any]:
        """How images have to be prepared, in timm's words."""
        return {
            "input_size": [3, self.image_px, self.image_px],
            "mean": list(IMAGENET_DEFAULT_MEAN),
            "std": list(IMAGENET_DEFAULT_STD),
            "interpolation": "bicubic",
            "crop_pct": self.image_px / (self.resize_px + 0.5),  # timm cuts the side over this down to an integer
        }

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What timm keeps of weights, with nothing of those that it has itself under this name."""
        return {
            **self.data_config,
            "architecture": self.architecture,
            "num_classes": self.arguments["num_classes"],
            "fixed_input_size": True,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }

    def build(self, *, exportable: bool = False) -> nn.Module:
        """The model with its weights, in evaluation mode.

        Args:
            exportable: Attention in plain steps: torch's exporter to ONNX stumbles over the fused one where positions
                are added to its scores.

        Raises:
            CheckpointError: Its tensors are not those of the architecture.
        """
        model = timm.create_model(
            self.architecture, pretrained_cfg=self.pretrained_cfg, exportable=exportable, **self.arguments
        )
        try:
            model.load_state_dict(self.tensors)
        except RuntimeError as problem:
            raise CheckpointError(
                f"timm's {self.architecture} does not take these weights: {str(problem).splitlines()[-1].strip()} Give "
                "a CAE v2 checkpoint."
            ) from None
        return model.eval()


def encoder_as_timm(settings: ModelSettings, encoder: Mapping[str, Tensor]) -> TimmModel:
    """A student's encoder; `encoder` are its tensors without a prefix."""
    architecture = _STOCK.get(settings.width, _FOR_OTHERS)
    tensors = {name: _without_key_bias(name, tensor) for name, tensor in encoder.items()}
    return TimmModel(
        architecture=architecture,
        arguments={"num_classes": 0, **_arguments(architecture, settings)},
        tensors=tensors,
        image_px=settings.image_px,
        resize_px=round(settings.image_px * RESIZE_RATIO),
        output="tokens",
    )


def classifier_as_timm(
    settings: ModelSettings, tensors: Mapping[str, Tensor], *, resize_px: int | None = None
) -> TimmModel:
    """A fine-tuned classifier out of its published tensors, under bare names.

    Args:
        settings: Sizes of its encoder.
        tensors: By name.
        resize_px: Short side of the images before the centre crop; none: 8/7 of the crop.

    Raises:
        CheckpointError: It has no head.
    """
    if "head.weight" not in tensors:
        raise CheckpointError("The file has no head.weight, so it is no classifier. Give a fine-tuned checkpoint.")
    relative = any(name.endswith("relative_position_bias_table") and value.any() for name, value in tensors.items())
    architecture = _WITH_RELATIVE_POSITIONS if relative else _STOCK.get(settings.width, _FOR_OTHERS)
    kept = {name: value.float() for name, value in tensors.items() if not name.endswith("relative_position_index")}
    arguments = {"num_classes": len(kept["head.weight"]), **_arguments(architecture, settings)}
    if "fc_norm.weight" in kept:
        arguments["global_pool"] = "avg"
    if relative:
        arguments["use_abs_pos_emb"] = True
        if settings.layer_scale is None:  # the name stands for 0.1, and timm takes none for nothing said
            arguments["init_values"] = 0.0
    else:
        kept = _as_vision_transformer(kept)
    return TimmModel(
        architecture=architecture,
        arguments=arguments,
        tensors=kept,
        image_px=settings.image_px,
        resize_px=resize_px or round(settings.image_px * RESIZE_RATIO),
        output="logits",
    )


def _arguments(architecture: str, settings: ModelSettings) -> dict[str, Any]:
    """Sizes, where they are not those that the name stands for."""
    stock = {"img_size": 224, "patch_size": 16, "mlp_ratio": 4.0, "init_values": None, **_STOCK_SIZES[architecture]}
    ours = {
        "img_size": settings.image_px,
        "patch_size": settings.patch_px,
        "embed_dim": settings.width,
        "depth": settings.depth,
        "num_heads": settings.heads,
        "mlp_ratio": settings.mlp_ratio,
        "init_values": settings.layer_scale,
    }
    return {name: value for name, value in ours.items() if value != stock[name]}


def _without_key_bias(name: str, tensor: Tensor) -> Tensor:
    """A tensor as the encoder uses it: the middle third of its bias takes no part."""
    if not name.endswith("attn.qkv.bias"):
        return tensor
    query, _, value = tensor.chunk(3)
    return torch.cat([query, torch.zeros_like(query), value])


def _as_vision_transformer(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published bare names as those of timm's `VisionTransformer`."""
    renamed = {}
    for name, tensor in tensors.items():
        if name.endswith("attn.q_bias"):
            stem = name.removesuffix("q_bias")
            renamed[stem + "qkv.bias"] = torch.cat([tensor, torch.zeros_like(tensor), tensors[stem + "v_bias"]])
        elif not name.endswith(("attn.v_bias", "relative_position_bias_table")):
            renamed[name.replace(".gamma_1", ".ls1.gamma").replace(".gamma_2", ".ls2.gamma")] = tensor
    return renamed
