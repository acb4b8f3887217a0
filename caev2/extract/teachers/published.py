"""Teachers by open_clip's names: which architecture, which weights, which pixels."""

from pathlib import Path

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from caev2.errors import ConfigError, TeacherError
from caev2.extract.teachers import openclip_timm
from caev2.extract.teachers.download import published_sha256
from caev2.extract.teachers.hashes import verify
from caev2.extract.teachers.hub import Publication, fetch_weights, hub_files
from caev2.extract.teachers.names import TeacherName
from caev2.extract.teachers.openclip import TowerConfig, build_teacher, outline_tower, refuse_other_kinds
from caev2.extract.teachers.teacher import Outline, Precision, Statistics, Teacher
from caev2.extract.teachers.trunks import refuse_other_networks
from caev2.extract.teachers.weights import TowerFile, read_tower, sniff
from caev2.recipe import nearest

_QUICK = "-quickgelu"


def check_name(name: TeacherName) -> None:
    """Check all that can be known without the weights.

    Raises:
        ConfigError: The architecture or tag does not exist, no weights are named, or the tag's weights were
            trained with another GELU than the architecture computes.
        TeacherError: Its tower has no tokens that a store could hold.
    """
    check_architecture(name)
    config = _config(name)
    if name.tag is None:
        if name.path is None:
            tags = ", ".join(list_pretrained_tags_by_model(_architecture(name))) or "none"
            raise ConfigError(
                f"The teacher {name.text!r} names no weights. Add @PATH of a file, or /TAG (known: {tags})."
            )
        return
    published = get_pretrained_cfg(_architecture(name), name.tag)
    _refuse_other_gelu(name, config.quick_gelu, bool(published.get("quick_gelu")), f"weights {name.tag!r}")


def check_architecture(name: TeacherName) -> None:
    """Check that the architecture exists, has tokens that a store could hold, and has the tag, if one is named.

    Raises:
        ConfigError: There is no such architecture or tag.
        TeacherError: Its tower has no such tokens.
    """
    architecture, known = _architecture(name), open_clip.list_models()
    if architecture not in known:
        raise ConfigError(f"open_clip has no architecture called {name.architecture!r}. {nearest(architecture, known)}")
    vision = (open_clip.get_model_config(architecture) or {})["vision_cfg"]
    if timm_name := vision.get("timm_model_name"):
        refuse_other_networks(timm_name, f"openclip:{architecture}")
    else:
        refuse_other_kinds(vision, f"openclip:{architecture}")
    if name.tag is not None and not get_pretrained_cfg(architecture, name.tag):
        raise ConfigError(
            f"open_clip knows no weights called {name.tag!r} for {architecture}. {nearest(name.tag, tags_of(name))}"
        )


def tags_of(name: TeacherName) -> list[str]:
    """Published weights of the architecture."""
    return list_pretrained_tags_by_model(_architecture(name))


def load(
    name: TeacherName,
    *,
    device: str,
    precision: Precision | None,
    image_px: int | None,
    cache: Path | None,
) -> Teacher:
    """Load a teacher by open_clip's name; see `caev2.extract.teachers.catalog.load_teacher`."""
    config = _config(name)
    file = read_tower(_weights_path(name, cache))
    if file.quick_gelu is not None:
        _refuse_other_gelu(name, config.quick_gelu, file.quick_gelu, f"weights in {file.path}")
    elif name.tag is None:
        _refuse_doubtful_gelu(name, config, file)
    build = openclip_timm.build_teacher if config.vision.get("timm_model_name") else build_teacher
    return build(config, file, name=name.canonical, device=device, precision=precision, image_px=image_px)


def outline(name: TeacherName, image_px: int | None = None) -> Outline:
    """What the architecture of a name decides, without memory for weights.

    Raises:
        ConfigError: It cannot take images of that size.
    """
    config = _config(name)
    of_kind = openclip_timm.outline_tower if config.vision.get("timm_model_name") else outline_tower
    return of_kind(config, name=name.canonical, image_px=image_px)


def published(name: TeacherName) -> Publication:
    """Where the weights of a tag are."""
    found = get_pretrained_cfg(_architecture(name), name.tag or "") or {}
    repository, files = hub_files(found["hf_hub"]) if found.get("hf_hub") else (None, ())
    return Publication(
        name=f"openclip:{name.architecture}/{name.tag}",
        repository=repository,
        files=files,
        url=found.get("url") or None,
    )


def _architecture(name: TeacherName) -> str:
    return name.architecture or ""


def _config(name: TeacherName) -> TowerConfig:
    model = open_clip.get_model_config(_architecture(name)) or {}
    mean, std = _pixel_statistics(name)
    return TowerConfig(
        vision=model["vision_cfg"],
        embed_dim=model["embed_dim"],
        quick_gelu=bool(model.get("quick_gelu")),
        mean=mean,
        std=std,
    )


def _pixel_statistics(name: TeacherName) -> Statistics:
    """Mean and std of the tag; without a tag, what all tags of the architecture agree on, or else OpenAI's.

    Raises:
        ConfigError: A file without a tag, where the architecture's published weights differ in statistics.
    """
    architecture = _architecture(name)
    found = pixels_of_tags(name)
    if len(found) > 1:
        choices = " or ".join(f"openclip:{architecture}/{tag}@PATH" for tag in found.values())
        raise ConfigError(
            f"The published weights of {architecture} were trained on differently normalised pixels, so a "
            f"file alone does not say which. Name weights of the same kind: {choices}."
        )
    return next(iter(found), (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))


def pixels_of_tags(name: TeacherName) -> dict[Statistics, str]:
    """Mean and std of the tag, or of all tags of the architecture, and a tag that has them."""
    architecture = _architecture(name)
    found: dict[Statistics, str] = {}
    for tag in [name.tag] if name.tag else tags_of(name):
        if published := get_pretrained_cfg(architecture, tag):
            found.setdefault((tuple(published["mean"]), tuple(published["std"])), tag)
    return found


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
    publication = published(name)
    if name.path is None:
        return fetch_weights(publication, cache=cache)
    if publication.url and sniff(name.path) == "torchscript":
        _verify(name.path, publication.url)
    return name.path


def _verify(path: Path, url: str) -> None:
    try:
        verify(path, published_sha256(url))
    except TeacherError as problem:
        raise TeacherError(
            f"{problem} Fetch it again, or leave the tag out of the teacher's name to use the file as it is."
        ) from None
