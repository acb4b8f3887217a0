"""open_clip's towers that are timm models, SigLIP, EVA-CLIP, MobileCLIP-B and ViTamin among them, as teachers.

The trunk is read as any of timm's; behind it lies open_clip's projection, which is applied to every token where the
tower projects what it pools linearly. Behind an attention pooling there is no projection that patches could take: such
a tower has no tap `projected`, and its row at `post_norm` is what the pooling makes of the image.
"""

from typing import Any

import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.timm_model import TimmModel
from torch import nn

from caev2.extract.teachers.identity import tower_sha256
from caev2.extract.teachers.openclip import TowerConfig
from caev2.extract.teachers.teacher import Outline, Precision, default_precision
from caev2.extract.teachers.trunks import (
    TrunkTeacher,
    build_for_size,
    load_trunk,
    outline_trunk,
    weights_alone,
    whole_px,
)
from caev2.extract.teachers.weights import TowerFile

_TRUNK = "trunk."


def build_teacher(
    config: TowerConfig,
    file: TowerFile,
    *,
    name: str,
    device: str,
    precision: Precision | None = None,
    image_px: int | None = None,
) -> TrunkTeacher:
    """A teacher of a known architecture with the weights of a file; see `openclip.build_teacher`."""
    tower, outline = _build(config, name, image_px)
    sha256 = tower_sha256(weights_alone(file.weights))
    load_trunk(tower, file, name=name, inside=_TRUNK)
    description = outline.describe(name=name, sha256=sha256, precision=precision or default_precision(device))
    return TrunkTeacher(tower.trunk, description, device, _projection(tower))


def outline_tower(config: TowerConfig, *, name: str, image_px: int | None = None) -> Outline:
    """What an architecture decides, without memory for weights.

    Raises:
        ConfigError: It cannot take images of that size.
    """
    with torch.device("meta"):
        return _build(config, name, image_px)[1]


def _build(config: TowerConfig, name: str, image_px: int | None) -> tuple[Any, Outline]:
    size = image_px or config.vision["image_size"]
    tower = build_for_size(lambda: _build_tower(config, size), name, size)
    if image_px is None and (whole := whole_px(tower.trunk, size)) != size:
        tower, size = build_for_size(lambda: _build_tower(config, whole), name, whole), whole
    outline = outline_trunk(
        tower.trunk,
        name=name,
        image_px=size,
        mean=config.mean,
        std=config.std,
        projected=None if _projection(tower) is None else config.embed_dim,
    )
    return tower, outline


def _build_tower(config: TowerConfig, size: int) -> TimmModel:
    vision = CLIPVisionCfg(**{**config.vision, "patch_dropout": 0.0, "timm_model_pretrained": False})
    tower = _build_vision_tower(config.embed_dim, vision, config.quick_gelu)
    assert isinstance(tower, TimmModel)
    trunk: Any = tower.trunk
    if tuple(trunk.patch_embed.img_size or ()) != (size, size):
        trunk.set_input_size((size, size))
    return tower


def _projection(tower: Any) -> nn.Module | None:
    """The head of timm and that of open_clip behind it, where either does anything."""
    parts = [part for part in (tower.trunk.head, *tower.head) if not isinstance(part, nn.Identity | nn.Dropout)]
    return nn.Sequential(*parts) if parts else None
