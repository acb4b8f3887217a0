"""timm's vision transformers as teachers: DINOv2 and DINOv3, DINO, DeiT, BEiT, EVA, SigLIP and what else is one.

Their tokens are read at the output of any block and after the final norm; how, `trunks` says. There is no
projection, so there is no tap `projected`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg

from caev2.errors import ConfigError
from caev2.extract.teachers.hub import Publication, fetch_weights
from caev2.extract.teachers.identity import tower_sha256
from caev2.extract.teachers.names import TeacherName
from caev2.extract.teachers.teacher import Outline, Precision, Statistics, default_precision
from caev2.extract.teachers.trunks import (
    TrunkTeacher,
    build_for_size,
    known_trunks,
    load_trunk,
    outline_trunk,
    refuse_other_networks,
    weights_alone,
    whole_px,
)
from caev2.extract.teachers.weights import read_tower
from caev2.recipe import nearest

_CLASSIFIERS = ("head.", "head_dist.")


def check_name(name: TeacherName) -> None:
    """Check all that can be known without the weights.

    Raises:
        ConfigError: timm has no such model, or neither a file nor published weights are named.
        TeacherError: The model has no tokens that a store could hold.
    """
    check_architecture(name)
    if name.path is None and "." not in (name.architecture or ""):
        raise ConfigError(
            f"The teacher {name.text!r} names no weights. Add @PATH of a file, or .TAG (known: "
            f"{', '.join(tags_of(name)) or 'none'})."
        )
    _refuse_other_gelu(name)
    refuse_doubtful_pixels(name)


def _refuse_other_gelu(name: TeacherName) -> None:
    """Weights that timm has for an architecture with quick GELU too were trained with that one."""
    model, _, tag = (name.architecture or "").partition(".")
    right = f"{model.replace('_clip_', '_clip_quickgelu_')}.{tag}"
    if tag and right != name.architecture and timm.models.is_model_pretrained(right):
        raise ConfigError(
            f"The weights {tag!r} were trained with quick GELU, but {model} computes exact GELU. Write "
            f"{name.text.replace(name.architecture or '', right, 1)}."
        )


def check_architecture(name: TeacherName) -> None:
    """Check that the model exists, has tokens that a store could hold, and has the tag, if one is named.

    Raises:
        ConfigError: There is no such model or tag.
        TeacherError: The model has no such tokens.
    """
    if name.architecture is None or name.tag is not None:
        raise ConfigError(f"The teacher {name.text!r} is written as timm:MODEL.TAG or timm:MODEL@PATH.")
    model, _, tag = name.architecture.partition(".")
    if not timm.is_model(model):
        raise ConfigError(f"timm has no vision transformer called {model!r}. {nearest(model, known_trunks())}")
    refuse_other_networks(model, f"timm:{model}")
    tags = tags_of(name)
    if tag and tag not in tags:
        raise ConfigError(f"timm knows no weights called {tag!r} for {model}. {nearest(tag, tags)}")


def tags_of(name: TeacherName) -> list[str]:
    """Published weights of the model."""
    model = (name.architecture or "").partition(".")[0]
    return [entry.partition(".")[2] for entry in timm.list_models(f"{model}.*", pretrained=True)]


def refuse_doubtful_pixels(name: TeacherName) -> None:
    """A file alone does not say how its pixels are normalised where the published weights differ in that.

    Raises:
        ConfigError: No tag says it either.
    """
    model = (name.architecture or "").partition(".")[0]
    found = pixels_of_tags(name)
    if len(found) > 1:
        choices = " or ".join(f"timm:{model}.{each}@PATH" for each in found.values())
        raise ConfigError(
            f"The published weights of {model} were trained on differently normalised pixels, so a file alone does "
            f"not say which. Name weights of the same kind: {choices}."
        )


def pixels_of_tags(name: TeacherName) -> dict[Statistics, str]:
    """Mean and std of the tag, or of all tags of the model, and a tag that has them."""
    model, _, tag = (name.architecture or "").partition(".")
    found: dict[Statistics, str] = {}
    for each in [tag] if tag else tags_of(name):
        if settings := get_pretrained_cfg(f"{model}.{each}"):
            found.setdefault((channels_of(settings.mean), channels_of(settings.std)), each)
    return found


def channels_of(values: Sequence[float]) -> tuple[float, float, float]:
    """Three numbers, for red, green and blue."""
    red, green, blue = values
    return red, green, blue


def load(
    name: TeacherName,
    *,
    device: str,
    precision: Precision | None,
    image_px: int | None,
    cache: Path | None,
) -> TrunkTeacher:
    """Load a teacher by timm's name; see `caev2.extract.teachers.catalog.load_teacher`.

    Positions are resized as timm does it: bicubic, antialiased, in fp32.
    """
    trunk, outline = _build(name, image_px)
    file = read_tower(name.path or fetch_weights(published(name), cache=cache), prefix="")
    weights = {key: value for key, value in file.weights.items() if not key.startswith(_CLASSIFIERS)}
    sha256 = tower_sha256(weights_alone(weights))
    load_trunk(trunk, dataclasses.replace(file, weights=weights), name=name.canonical)
    description = outline.describe(name=name.canonical, sha256=sha256, precision=precision or default_precision(device))
    return TrunkTeacher(trunk, description, device)


def untrained(name: TeacherName, *, device: str, seed: int, image_px: int | None) -> TrunkTeacher:
    """The same network as timm starts it: nobody has trained its weights, which are a function of the seed.

    Raises:
        ConfigError: It cannot take images of that size.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk, outline = _build(name, image_px)
    sha256 = tower_sha256(weights_alone(trunk.state_dict()))
    description = outline.describe(name=name.canonical, sha256=sha256, precision=default_precision(device))
    return TrunkTeacher(trunk, description, device)


def outline(name: TeacherName, image_px: int | None = None) -> Outline:
    """What the architecture of a name decides, without memory for weights.

    Raises:
        ConfigError: It cannot take images of that size.
    """
    with torch.device("meta"):
        return _build(name, image_px)[1]


def _build(name: TeacherName, image_px: int | None) -> tuple[Any, Outline]:
    found = get_pretrained_cfg(name.architecture or "", allow_unregistered=True)
    settings: Mapping[str, Any] = found.to_dict() if found else {}
    model, size = (name.architecture or "").partition(".")[0], image_px or settings["input_size"][-1]
    trunk = _build_trunk(model, name.canonical, size)
    if image_px is None and (whole := whole_px(trunk, size)) != size:
        trunk, size = _build_trunk(model, name.canonical, whole), whole
    mean, std = channels_of(settings["mean"]), channels_of(settings["std"])
    return trunk, outline_trunk(trunk, name=name.canonical, image_px=size, mean=mean, std=std)


def _build_trunk(model: str, name: str, size: int) -> Any:
    return build_for_size(lambda: timm.create_model(model, img_size=size, num_classes=0, pretrained=False), name, size)


def published(name: TeacherName) -> Publication:
    """Where the weights of a tag are."""
    found = get_pretrained_cfg(name.architecture or "")
    repository = found.hf_hub_id if found else None
    return Publication(
        name=f"timm:{name.architecture}",
        repository=repository,
        files=("model.safetensors",),
        url=found.url if found and isinstance(found.url, str) and not repository else None,
        licence=None if found is None else found.license,
    )
