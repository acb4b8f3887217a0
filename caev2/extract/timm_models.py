"""timm's vision transformers as teachers: DINOv2, DINO, DeiT III and whatever else has a class token and a grid.

Their tokens are read at the output of any block and after the final norm. There is no projection, so there is no tap
`projected`. Register tokens take part in the teacher's attention and are not stored.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float, UInt8
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import get_pretrained_cfg
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from caev2.errors import ConfigError, TeacherError
from caev2.extract.hub import fetch_weights
from caev2.extract.identity import tower_sha256
from caev2.extract.names import TeacherName
from caev2.extract.teacher import (
    Precision,
    TeacherDescription,
    check_images,
    check_taps,
    default_precision,
    normalise,
)
from caev2.extract.weights import TowerFile, read_tower
from caev2.recipe import nearest

_POSITIONS = "pos_embed"
_AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


class TimmTeacher:
    """A frozen vision transformer of timm; see `caev2.extract.teacher.Teacher`."""

    def __init__(self, model: VisionTransformer, description: TeacherDescription, device: str):
        self.description = description
        self._model = model.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def tokens(
        self, images: UInt8[Tensor, "image size size 3"], taps: Sequence[str]
    ) -> dict[str, Float[Tensor, "image token width"]]:
        """The latents of all tokens at each tap; see `caev2.extract.teacher.Teacher.tokens`."""
        check_images(images, self.description.image_px)
        check_taps(taps, self.description.widths)
        pixels = normalise(images, self.description.mean, self.description.std)
        lower = _AUTOCAST.get(self.description.precision)  # autocast leaves norms and residuals in fp32
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.autocast(pixels.device.type, dtype=lower, enabled=lower is not None), exact:
            return self._forward(pixels, frozenset(taps))

    def _forward(
        self, pixels: Float[Tensor, "image 3 size size"], taps: frozenset[str]
    ) -> dict[str, Float[Tensor, "image token width"]]:
        model, latents = self._model, {}
        tokens = model.norm_pre(model._pos_embed(model.patch_embed(pixels)))
        for number, block in enumerate(model.blocks, start=1):
            tokens = block(tokens)
            if f"block:{number}" in taps:
                latents[f"block:{number}"] = self._without_registers(tokens)
        if "post_norm" in taps:
            latents["post_norm"] = self._without_registers(model.norm(tokens))
        return latents

    def _without_registers(self, tokens: Float[Tensor, "image all width"]) -> Float[Tensor, "image token width"]:
        return torch.cat([tokens[:, :1], tokens[:, self._model.num_prefix_tokens :]], dim=1)


def check_name(name: TeacherName) -> None:
    """Check all that can be known without the weights.

    Raises:
        ConfigError: timm has no such vision transformer, or neither a file nor published weights are named.
    """
    if name.architecture is None or name.tag is not None:
        raise ConfigError(f"The teacher {name.text!r} is written as timm:MODEL.TAG or timm:MODEL@PATH.")
    known = _models()
    model, _, tag = name.architecture.partition(".")
    if model not in known:
        raise ConfigError(f"timm has no vision transformer called {model!r}. {nearest(model, known)}")
    tags = _tags(model)
    if tag and tag not in tags:
        raise ConfigError(f"timm knows no weights called {tag!r} for {model}. {nearest(tag, tags)}")
    if name.path is None and not tag:
        raise ConfigError(
            f"The teacher {name.text!r} names no weights. Add @PATH of a file, or .TAG (known: "
            f"{', '.join(tags) or 'none'})."
        )
    _refuse_doubtful_pixels(name)


def _refuse_doubtful_pixels(name: TeacherName) -> None:
    """A file alone does not say how its pixels are normalised where the published weights differ in that."""
    model, _, tag = (name.architecture or "").partition(".")
    found = {}
    for each in [tag] if tag else _tags(model):
        if settings := get_pretrained_cfg(f"{model}.{each}"):
            found.setdefault((tuple(settings.mean), tuple(settings.std)), each)
    if len(found) > 1:
        choices = " or ".join(f"timm:{model}.{each}@PATH" for each in found.values())
        raise ConfigError(
            f"The published weights of {model} were trained on differently normalised pixels, so a file alone does "
            f"not say which. Name weights of the same kind: {choices}."
        )


def _tags(model: str) -> list[str]:
    return [entry.partition(".")[2] for entry in timm.list_models(f"{model}.*", pretrained=True)]


@functools.cache
def _models() -> list[str]:
    return timm.list_models(module="vision_transformer")


def load(
    name: TeacherName,
    *,
    device: str,
    precision: Precision | None,
    image_px: int | None,
    cache: Path | None,
) -> TimmTeacher:
    """Load a teacher by timm's name; see `caev2.extract.catalog.load_teacher`.

    Positions are resized as timm does it: bicubic, antialiased, in fp32.
    """
    published = get_pretrained_cfg(name.architecture or "", allow_unregistered=True)
    settings: Mapping[str, Any] = published.to_dict() if published else {}
    model = _empty_model(name, image_px or settings["input_size"][-1])
    file = read_tower(name.path or _fetch(name, settings, cache), prefix="")
    weights = {key: value.float() for key, value in file.weights.items() if not key.startswith("head.")}
    sha256 = tower_sha256(weights)
    _load_weights(model, weights, file, name)
    precision = precision or default_precision(device)
    description = TeacherDescription(
        name=name.canonical,
        sha256=sha256,
        image_px=model.patch_embed.img_size[0],
        patch_px=model.patch_embed.patch_size[0],
        tokens=1 + model.patch_embed.num_patches,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        precision=precision,
        widths=_widths(model),
    )
    return TimmTeacher(model, description, device)


def _fetch(name: TeacherName, settings: Mapping[str, Any], cache: Path | None) -> Path:
    model, _, tag = (name.architecture or "").partition(".")
    repository = settings.get("hf_hub_id")
    published = {"hf_hub": f"{repository}/model.safetensors"} if repository else {"url": settings.get("url")}
    return fetch_weights(published, architecture=model, tag=tag, cache=cache, scheme="timm")


def _empty_model(name: TeacherName, image_px: int) -> VisionTransformer:
    architecture = (name.architecture or "").partition(".")[0]
    try:
        model = timm.create_model(architecture, img_size=image_px, num_classes=0, pretrained=False)
    except (TypeError, AssertionError, ValueError) as problem:
        raise ConfigError(f"{name.canonical} cannot take crops of {image_px} pixels: {problem}") from None
    assert isinstance(model, VisionTransformer)
    patch_px = model.patch_embed.patch_size[0]
    if image_px % patch_px:
        raise ConfigError(
            f"{name.canonical} cuts images into patches of {patch_px} pixels, so its image size cannot be {image_px}. "
            f"Give a multiple of {patch_px}, such as {patch_px * 14}."
        )
    if model.cls_token is None:
        raise TeacherError(
            f"{name.canonical} has no class token, which every row of a store begins with. Choose a model that has."
        )
    return model


def _load_weights(model: VisionTransformer, weights: dict[str, Tensor], file: TowerFile, name: TeacherName) -> None:
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for key in sorted(wanted.keys() | weights.keys()):
        found = tuple(weights[key].shape) if key in weights else None
        if key == _POSITIONS and found and key in wanted:
            found = (*found[:1], wanted[key][1], *found[2:])  # the number of positions may differ
        if wanted.get(key) != found:
            raise TeacherError(
                f"{file.path} is no {name.canonical}: for {key} the architecture has {wanted.get(key) or 'nothing'}, "
                f"the file {found or 'nothing'}. Name the architecture that the file was written for."
            )
        if not bool(torch.isfinite(weights[key]).all()):
            raise TeacherError(f"{file.path} holds infinite or undefined numbers in {key}. Fetch it again.")
    if _POSITIONS in weights:
        weights = {**weights, _POSITIONS: _resize(model, weights[_POSITIONS])}
    model.load_state_dict(weights)


def _resize(model: VisionTransformer, positions: Float[Tensor, "1 old width"]) -> Float[Tensor, "1 new width"]:
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    return resample_abs_pos_embed(positions, list(model.patch_embed.grid_size), num_prefix_tokens=prefix)


def _widths(model: VisionTransformer) -> dict[str, int]:
    """Every tap; a model that pools before its final norm has no norm of every token."""
    blocks = {f"block:{number}": model.embed_dim for number in range(1, len(model.blocks) + 1)}
    return blocks if isinstance(model.norm, nn.Identity) else {"post_norm": model.embed_dim, **blocks}
