"""open_clip image towers as teachers: all tokens of a vision transformer, class token first.

The published target is CLIP's own last step, the final norm and the projection, applied to every token
instead of the class token alone (Zhang et al., 2211.09799). open_clip's modules are run one by one for that,
since its own forward pass pools first. A tower that averages its patches has that mean, normed and projected, for a
class row: what open_clip makes of the image. Towers out of timm are read by `caev2.extract.teachers.openclip_timm`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from open_clip.model import CLIPVisionCfg, _build_vision_tower, convert_weights_to_lp
from open_clip.transformer import LayerScale, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from caev2.errors import ConfigError, TeacherError
from caev2.extract.teachers.identity import tower_sha256
from caev2.extract.teachers.teacher import (
    Outline,
    Precision,
    TeacherDescription,
    check_images,
    check_taps,
    default_precision,
    normalise,
)
from caev2.extract.teachers.weights import TowerFile

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_POSITIONS = "positional_embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerConfig:
    """The architecture of an image tower and the pixels it was trained on."""

    vision: Mapping[str, Any]
    """open_clip's `vision_cfg`."""
    embed_dim: int
    """Width of the joint space of images and texts."""
    quick_gelu: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class OpenClipTeacher:
    """A frozen image tower of open_clip; see `caev2.extract.teachers.teacher.Teacher`."""

    def __init__(self, tower: VisionTransformer, description: TeacherDescription, device: str):
        self.description = description
        self._tower = tower.eval().requires_grad_(False).to(device)
        self._dtype = _DTYPES[description.precision]

    @property
    def tower(self) -> VisionTransformer:
        """The modules and their weights, for whoever trains a copy of them."""
        return self._tower

    def tokens(
        self, images: UInt8[Tensor, "image size size 3"], taps: Sequence[str]
    ) -> dict[str, Float[Tensor, "image token width"]]:
        """The latents of all tokens at each tap; see `caev2.extract.teachers.teacher.Teacher.tokens`."""
        check_images(images, self.description.image_px)
        return self.tokens_of_pixels(normalise(images, self.description.mean, self.description.std), taps)

    @torch.no_grad()  # not inference_mode: its tensors may not enter the loss of an online run
    def tokens_of_pixels(
        self, pixels: Float[Tensor, "image 3 size size"], taps: Sequence[str]
    ) -> dict[str, Float[Tensor, "image token width"]]:
        """The same for pixels that are normalised already."""
        check_taps(taps, self.description.widths)
        # fp32 means fp32, and the same crops the same bytes, whatever else the process has set
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.autocast(pixels.device.type, enabled=False), exact:
            return _forward(self._tower, pixels.to(self._dtype), frozenset(taps))


def _forward(
    tower: VisionTransformer, pixels: Float[Tensor, "image 3 size size"], taps: frozenset[str]
) -> dict[str, Float[Tensor, "image token width"]]:
    latents: dict[str, Tensor] = {}
    tokens = _embed(tower, pixels)
    for number, block in enumerate(tower.transformer.resblocks[: _blocks_needed(tower, taps)], start=1):
        tokens = block(tokens)
        if f"block:{number}" in taps:
            latents[f"block:{number}"] = tokens
    if taps & {"post_norm", "projected"}:
        tokens = _norm(tower, tokens)
        latents["post_norm"] = tokens
    if "projected" in taps and tower.proj is not None:
        latents["projected"] = tokens @ tower.proj
    return {tap: latents[tap] for tap in latents if tap in taps}


def _norm(tower: VisionTransformer, tokens: Float[Tensor, "image token width"]) -> Float[Tensor, "image token width"]:
    """The final norm of every token; where the tower pools the mean, that takes the place of the class token."""
    if tower.pool_type != "avg":
        return tower.ln_post(tokens)
    if tower.final_ln_after_pool:
        return tower.ln_post(torch.cat([tokens[:, 1:].mean(dim=1, keepdim=True), tokens[:, 1:]], dim=1))
    patches = tower.ln_post(tokens[:, 1:])
    return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)


def _embed(tower: VisionTransformer, pixels: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image token width"]:
    patches = tower.conv1(pixels).flatten(2).transpose(1, 2)
    class_token = tower.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    tokens = torch.cat([class_token, patches], dim=1) + tower.positional_embedding.to(patches.dtype)
    return tower.ln_pre(tokens)


def _blocks_needed(tower: VisionTransformer, taps: frozenset[str]) -> int:
    """How many blocks must run: no more than the last tapped one."""
    depth = len(tower.transformer.resblocks)
    return max((int(tap.removeprefix("block:")) if tap.startswith("block:") else depth for tap in taps), default=0)


def build_teacher(
    config: TowerConfig,
    file: TowerFile,
    *,
    name: str,
    device: str,
    precision: Precision | None = None,
    image_px: int | None = None,
) -> OpenClipTeacher:
    """A teacher of a known architecture with the weights of a file.

    Args:
        config: The architecture.
        file: The weights as they lie in the file.
        name: The canonical name that goes into the description.
        device: Where it computes.
        precision: As `default_precision` where it is not given.
        image_px: Another image size than the architecture's; its positions are resized bilinearly.

    Raises:
        TeacherError: The architecture has no tokens to offer, or the file holds another architecture.
        ConfigError: The image size is no multiple of the patch size.
    """
    precision = precision or default_precision(device)
    tower = _empty_tower(config, name, precision, image_px).to_empty(device="cpu")
    _refuse_other_architecture(tower, file, name)
    _refuse_broken_numbers(file)
    sha256 = tower_sha256(file.weights)
    outline = _outline(tower, config)
    positions = resize_positions(file.weights[_POSITIONS].float(), outline.grid)
    tower.load_state_dict({**file.weights, _POSITIONS: positions})
    _lower_precision(tower, _DTYPES[precision])
    description = outline.describe(name=name, sha256=sha256, precision=precision)
    return OpenClipTeacher(tower, description, device)


def outline_tower(config: TowerConfig, *, name: str, image_px: int | None = None) -> Outline:
    """What an architecture decides, without memory for weights.

    Raises:
        ConfigError: The image size is no multiple of the patch size.
    """
    return _outline(_empty_tower(config, name, "fp32", image_px), config)


def _outline(tower: VisionTransformer, config: TowerConfig) -> Outline:
    return Outline(
        image_px=_side(tower.image_size),
        patch_px=_side(tower.patch_size),
        mean=config.mean,
        std=config.std,
        widths=_widths(tower),
        class_row="mean" if tower.pool_type == "avg" else "token",
    )


def _side(size: Any) -> int:
    """Pixels a side of a square that open_clip keeps as a pair."""
    return size[0]


def _widths(tower: VisionTransformer) -> dict[str, int]:
    width = tower.transformer.width
    blocks = {f"block:{number}": width for number in range(1, len(tower.transformer.resblocks) + 1)}
    return {"projected": tower.output_dim, "post_norm": width, **blocks}


def _empty_tower(config: TowerConfig, name: str, precision: Precision, image_px: int | None) -> VisionTransformer:
    """The modules of a tower, without memory for their weights."""
    refuse_other_kinds(config.vision, name)
    vision = {**config.vision, "patch_dropout": 0.0}
    vision["image_size"] = _check_size(image_px or vision["image_size"], vision["patch_size"], name)
    cast = None if precision == "fp32" else _DTYPES[precision]  # decides LayerNorm in fp32
    with torch.device("meta"):
        tower = _build_vision_tower(config.embed_dim, CLIPVisionCfg(**vision), config.quick_gelu, cast)
    assert isinstance(tower, VisionTransformer)
    return tower


def refuse_other_kinds(vision: Mapping[str, Any], name: str) -> None:
    """Refuse a tower without tokens that could be stored, naming why.

    Raises:
        TeacherError: It is a convolutional network, or pools into queries before its final norm.
    """
    if isinstance(vision.get("layers"), list | tuple):
        why = "is a convolutional network, which has neither a class token nor tokens of patches"
    elif vision.get("attentional_pool"):
        why = (
            "is a transformer with an attentional pooler: its final norm and projection are of queries, not of patches"
        )
    else:
        return
    raise TeacherError(
        f"{name} cannot be a teacher: its image tower {why}. Choose a vision transformer, such as "
        "openclip:ViT-B-16-quickgelu or timm:vit_base_patch14_dinov2."
    )


def _check_size(image_px: Any, patch_px: int, name: str) -> int:
    if not isinstance(image_px, int) or image_px < patch_px or image_px % patch_px:
        raise ConfigError(
            f"{name} cuts images into patches of {patch_px} pixels, so its image size cannot be {image_px}. "
            f"Give a multiple of {patch_px}, such as {patch_px * 14}."
        )
    return image_px


def _refuse_other_architecture(tower: VisionTransformer, file: TowerFile, name: str) -> None:
    """Both must have the same tensors in the same shapes; only the number of positions may differ."""
    wanted = {key: _shape(key, tensor) for key, tensor in tower.state_dict().items()}
    found = {key: _shape(key, tensor) for key, tensor in file.weights.items()}
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            raise TeacherError(
                f"{file.path} is no {name}: for visual.{key} the architecture has {_say(wanted.get(key))}, "
                f"the file {_say(found.get(key))}. Name the architecture that the file was written for."
            )


def _refuse_broken_numbers(file: TowerFile) -> None:
    for key, tensor in file.weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise TeacherError(f"{file.path} holds infinite or undefined numbers in visual.{key}. Fetch it again.")


def _shape(key: str, tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape[1:] if key == _POSITIONS else tensor.shape)


def _say(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else "×".join(map(str, shape)) or "a scalar"


def resize_positions(positions: Float[Tensor, "token width"], grid: int) -> Float[Tensor, "resized_token width"]:
    """A learned position table for another number of patches a side; the class token's row stays.

    Bilinear, as the published code does it, where open_clip would use antialiased bicubic.
    """
    side = round((len(positions) - 1) ** 0.5)
    if side * side + 1 != len(positions):
        raise TeacherError(f"A position table of {len(positions)} rows is no square grid and a class token.")
    if side == grid:
        return positions
    patches = positions[1:].T.reshape(1, -1, side, side)
    resized = functional.interpolate(patches, size=(grid, grid), mode="bilinear", align_corners=False)
    return torch.cat([positions[:1], resized.reshape(-1, grid * grid).T])


def _lower_precision(tower: nn.Module, dtype: torch.dtype) -> None:
    """Convolutions, linear layers and attention in `dtype`, every norm in fp32, as in OpenAI's CLIP."""
    if dtype == torch.float32:
        return
    convert_weights_to_lp(tower, dtype)
    for module in tower.modules():
        if isinstance(module, LayerScale):  # or its product with the residual branch would be fp32
            module.to(dtype)
