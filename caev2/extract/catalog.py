"""From a teacher's name to the teacher. The grammar of names is in `caev2.extract.names`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caev2.errors import ConfigError
from caev2.extract import published, shipped, timm_models
from caev2.extract.names import TeacherName, split_name
from caev2.extract.teacher import Precision, Teacher
from caev2.recipe import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scheme:
    """What stands before the colon: a family of teachers."""

    check_name: Callable[[TeacherName], None]
    load: Callable[..., Teacher]


_SCHEMES = {
    "demo": _Scheme(check_name=shipped.check_name, load=shipped.load),
    "openclip": _Scheme(check_name=published.check_name, load=published.load),
    "timm": _Scheme(check_name=timm_models.check_name, load=timm_models.load),
}


def parse_name(text: str) -> TeacherName:
    """Take a teacher's name apart and check all that can be known without its weights.

    Raises:
        ConfigError: The scheme, architecture or tag does not exist, they do not fit, or no weights are named.
    """
    name = split_name(text)
    if name.scheme not in _SCHEMES:
        raise ConfigError(
            f"There is no teacher called {text!r}: its kind {name.scheme!r} is unknown. "
            f"{nearest(name.scheme, _SCHEMES)} A teacher is written as openclip:ARCHITECTURE/TAG, "
            "openclip:ARCHITECTURE@PATH, timm:MODEL.TAG, timm:MODEL@PATH or demo."
        )
    _SCHEMES[name.scheme].check_name(name)
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
    return _SCHEMES[name.scheme].load(name, device=device, precision=precision, image_px=image_px, cache=cache)
