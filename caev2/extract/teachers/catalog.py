"""From a teacher's name to the teacher. The grammar of names is in `caev2.extract.teachers.names`."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import open_clip

from caev2.errors import ConfigError
from caev2.extract.teachers import published, shipped, timm_models
from caev2.extract.teachers.hub import Publication
from caev2.extract.teachers.names import TeacherName, split_name
from caev2.extract.teachers.teacher import Outline, Precision, Statistics, Teacher
from caev2.extract.teachers.trunks import known_trunks
from caev2.recipe import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """What stands before the colon: a family of teachers."""

    check_name: Callable[[TeacherName], None]
    check_architecture: Callable[[TeacherName], None]
    load: Callable[..., Teacher]
    outline: Callable[[TeacherName], Outline]
    published: Callable[[TeacherName], Publication] | None = None
    """Where its weights are published; none: they come with the package."""
    tags_of: Callable[[TeacherName], list[str]] = lambda _name: []
    pixels_of_tags: Callable[[TeacherName], Mapping[Statistics, str]] = lambda _name: {}
    """Mean and std of the architecture's published weights, and a tag that has them."""


_SCHEMES = {
    "demo": Scheme(
        check_name=shipped.check_name,
        check_architecture=shipped.check_name,
        load=shipped.load,
        outline=shipped.outline,
    ),
    "openclip": Scheme(
        check_name=published.check_name,
        check_architecture=published.check_architecture,
        load=published.load,
        outline=published.outline,
        published=published.published,
        tags_of=published.tags_of,
        pixels_of_tags=published.pixels_of_tags,
    ),
    "timm": Scheme(
        check_name=timm_models.check_name,
        check_architecture=timm_models.check_architecture,
        load=timm_models.load,
        outline=timm_models.outline,
        published=timm_models.published,
        tags_of=timm_models.tags_of,
        pixels_of_tags=timm_models.pixels_of_tags,
    ),
}


def scheme_of(name: TeacherName) -> Scheme:
    """The family of a teacher.

    Raises:
        ConfigError: There is none of that name.
    """
    if name.scheme not in _SCHEMES:
        raise ConfigError(
            f"There is no teacher called {name.text!r}: its kind {name.scheme!r} is unknown. "
            f"{_nearest_name(name.scheme)} A teacher is written as openclip:ARCHITECTURE/TAG, "
            "openclip:ARCHITECTURE@PATH, timm:MODEL.TAG, timm:MODEL@PATH or demo."
        )
    return _SCHEMES[name.scheme]


def _nearest_name(text: str) -> str:
    """The closest kinds; or, where the kind was left out, the closest architectures with theirs."""
    known = {
        **{architecture: f"openclip:{architecture}" for architecture in open_clip.list_models()},
        **{model: f"timm:{model}" for model in known_trunks()},
    }
    close = difflib.get_close_matches(text.partition(".")[0], known, n=3, cutoff=0.8)
    if close:
        return "Did you mean " + " or ".join(repr(known[each]) for each in close) + "?"
    return nearest(text, _SCHEMES)


def parse_name(text: str) -> TeacherName:
    """Take a teacher's name apart and check all that can be known without its weights.

    Raises:
        ConfigError: The scheme, architecture or tag does not exist, they do not fit, or no weights are named.
        TeacherError: The architecture has no tokens that a store could hold.
    """
    name = split_name(text)
    scheme_of(name).check_name(name)
    return name


def load_teacher(
    text: str,
    *,
    device: str = "cpu",
    precision: Precision | None = None,
    image_px: int | None = None,
    cache: Path | None = None,
) -> Teacher:
    """Load a teacher by name.

    Args:
        text: The name.
        device: Where it computes.
        precision: `fp16` on a CUDA device and `fp32` elsewhere, if not given.
        image_px: Another image size than the teacher's own; positions are resized bilinearly.
        cache: Another folder for downloads than the client's own.

    Raises:
        ConfigError: The name or the image size cannot be used.
        TeacherError: The weights are missing, damaged, or those of another architecture.
        UnsafeFile: The file asks to run code.
    """
    name = parse_name(text)
    return scheme_of(name).load(name, device=device, precision=precision, image_px=image_px, cache=cache)
