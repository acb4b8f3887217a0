"""Teachers by open_clip's names: which architecture, which weights, which pixels."""

import hashlib
from pathlib import Path

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from caev2.errors import ConfigError, TeacherError
from caev2.extract.hub import fetch_weights, published_sha256
from caev2.extract.names import TeacherName
from caev2.extract.openclip import OpenClipTeacher, TowerConfig, build_teacher
from caev2.extract.teacher import Precision
from caev2.extract.weights import TowerFile, read_tower, sniff
from caev2.recipe import nearest

_QUICK = "-quickgelu"


def check_name(name: TeacherName) -> None:
    """Check all that can be known without the weights.

    Raises:
        ConfigError: The architecture or tag does not exist, no weights are named, or the tag's weights were
            trained with another GELU than the architecture computes.
    """
    config = _config(name)
    if name.tag is None:
        if name.path is None:
            tags = ", ".join(list_pretrained_tags_by_model(_architecture(name))) or "none"
            raise ConfigError(
                f"The teacher {name.text!r} names no weights. Add @PATH of a file, or /TAG (known: {tags})."
            )
        return
    published = get_pretrained_cfg(_architecture(name), name.tag)
    if not published:
        tags = list_pretrained_tags_by_model(_architecture(name))
        raise ConfigError(
            f"open_clip knows no weights called {name.tag!r} for {name.architecture}. {nearest(name.tag, tags)}"
        )
    _refuse_other_gelu(name, config.quick_gelu, bool(published.get("quick_gelu")), f"weights {name.tag!r}")


def load(
    name: TeacherName,
    *,
    device: str,
    precision: Precision | None,
    image_px: int | None,
    cache: Path | None,
) -> OpenClipTeacher:
    """Load a teacher by open_clip's name; see `caev2.extract.catalog.load_teacher`."""
    config = _config(name)
    file = read_tower(_weights_path(name, cache))
    if file.quick_gelu is not None:
        _refuse_other_gelu(name, config.quick_gelu, file.quick_gelu, f"weights in {file.path}")
    elif name.tag is None:
        _refuse_doubtful_gelu(name, config, file)
    return build_teacher(config, file, name=name.canonical, device=device, precision=precision, image_px=image_px)


def _architecture(name: TeacherName) -> str:
    return name.architecture or ""


def _config(name: TeacherName) -> TowerConfig:
    known = open_clip.list_models()
    if name.architecture not in known:
        raise ConfigError(
            f"open_clip has no architecture called {name.architecture!r}. {nearest(_architecture(name), known)}"
        )
    model = open_clip.get_model_config(_architecture(name)) or {}
    mean, std = _pixel_statistics(name)
    return TowerConfig(
        vision=model["vision_cfg"],
        embed_dim=model["embed_dim"],
        quick_gelu=bool(model.get("quick_gelu")),
        mean=mean,
        std=std,
    )


Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]


def _pixel_statistics(name: TeacherName) -> Statistics:
    """Mean and std of the tag; without a tag, what all tags of the architecture agree on, or else OpenAI's.

    Raises:
        ConfigError: A file without a tag, where the architecture's published weights differ in statistics.
    """
    architecture = _architecture(name)
    tags = [name.tag] if name.tag else list_pretrained_tags_by_model(architecture)
    found: dict[Statistics, str] = {}
    for tag in tags:
        if published := get_pretrained_cfg(architecture, tag):
            found.setdefault((tuple(published["mean"]), tuple(published["std"])), tag)
    if len(found) > 1:
        choices = " or ".join(f"openclip:{architecture}/{tag}@PATH" for tag in found.values())
        raise ConfigError(
            f"The published weights of {architecture} were trained on differently normalised pixels, so a "
            f"file alone does not say which. Name weights of the same kind: {choices}."
        )
    return next(iter(found), (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))


def _refuse_other_gelu(name: TeacherName, computed: bool, trained: bool, what: str) -> None:
    """A tower with the wrong GELU runs and gives wrong latents: refuse it, naming the right architecture."""
    architecture = _architecture(name)
    right = architecture + _QUICK if trained else architecture.removesuffix(_QUICK)
    # open_clip's entries for a few architectures leave the tag's GELU out; those have no counterpart
    if computed == trained or right == architecture or right not in open_clip.list_models():
        return
    kinds = {True: "quick GELU", False: "exact GELU"}
    instead = name.text.replace(f":{architecture}", f":{right}", 1)
    raise ConfigError(
        f"The {what} were trained with {kinds[trained]}, but {architecture} computes {kinds[computed]}. "
        f"Write {instead}."
    )


def _refuse_doubtful_gelu(name: TeacherName, config: TowerConfig, file: TowerFile) -> None:
    """OpenAI's weights in a plain file do not ask for quick GELU; their half precision gives them away."""
    architecture = _architecture(name)
    quick = architecture + _QUICK
    if config.quick_gelu or quick not in open_clip.list_models() or not _is_half(file):
        return
    tags = ", ".join(
        tag
        for tag in list_pretrained_tags_by_model(architecture)
        if not get_pretrained_cfg(architecture, tag).get("quick_gelu")
    )
    raise ConfigError(
        f"{file.path} does not say which GELU it was trained with, and its numbers are all in half "
        "precision, as OpenAI's are, which need quick GELU. For OpenAI's write "
        f"{name.text.replace(architecture, quick, 1)}; for others name their kind: "
        f"openclip:{architecture}/TAG@PATH ({tags or 'no tags known'})."
    )


def _is_half(file: TowerFile) -> bool:
    """Whether fp16 holds every product weight exactly, as in what OpenAI published."""
    products = [tensor for key, tensor in file.weights.items() if tensor.ndim > 1 and "embedding" not in key]
    return all(torch.equal(tensor.half().float(), tensor.float()) for tensor in products)


def _weights_path(name: TeacherName, cache: Path | None) -> Path:
    published = get_pretrained_cfg(_architecture(name), name.tag or "")
    if name.path is None:
        return fetch_weights(published, architecture=_architecture(name), tag=name.tag or "", cache=cache)
    expected = published_sha256(published.get("url") or "") if published else None
    if expected and sniff(name.path) == "torchscript":
        _verify(name.path, expected)
    return name.path


def _verify(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise TeacherError(
            f"{path} is not the published file: its sha256 is {found}, the published one {expected}. Fetch "
            "it again, or leave the tag out of the teacher's name to use the file as it is."
        )
