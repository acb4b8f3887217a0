"""The demo's teacher: a small CLIP image tower in a safetensors file that describes its own architecture."""

import json
from pathlib import Path
from typing import Any

from caev2.errors import ConfigError, TeacherError
from caev2.extract.teachers.names import TeacherName
from caev2.extract.teachers.openclip import OpenClipTeacher, TowerConfig, build_teacher, outline_tower
from caev2.extract.teachers.teacher import Outline, Precision
from caev2.extract.teachers.weights import TowerFile, read_tower

_WEIGHTS = Path(__file__).parents[2] / "demo" / "weights" / "teacher.safetensors"
_KINDS = {
    "image_px": int,
    "patch_px": int,
    "width": int,
    "layers": int,
    "heads": int,
    "embed_dim": int,
    "mlp_ratio": float,
    "quick_gelu": bool,
    "mean": list,
    "std": list,
}


def check_name(name: TeacherName) -> None:
    """Refuse what the demo's teacher does not come in."""
    if name.architecture is not None:
        raise ConfigError(f"There is one demo teacher, so {name.text!r} cannot choose. Write demo or demo@PATH.")


def outline(name: TeacherName, image_px: int | None = None) -> Outline:
    """What the file says of its architecture."""
    return outline_tower(_config(read_tower(weights_path(name))), name=name.canonical, image_px=image_px)


def weights_path(name: TeacherName) -> Path:
    """The shipped file, or the one that is named.

    Raises:
        TeacherError: The shipped one is missing.
    """
    if not _WEIGHTS.exists() and name.path is None:
        raise TeacherError(
            f"The demo teacher's weights are missing at {_WEIGHTS}. Install caev2 again, or train them with "
            "examples/train_demo_teacher.py and name the file: --teacher demo@PATH."
        )
    return name.path or _WEIGHTS


def load(
    name: TeacherName,
    *,
    device: str,
    precision: Precision | None,
    image_px: int | None,
    cache: Path | None,
) -> OpenClipTeacher:
    """Load the shipped weights, or others of the same format; see `caev2.extract.teachers.catalog.load_teacher`."""
    del cache  # nothing is downloaded
    file = read_tower(weights_path(name))
    return build_teacher(
        _config(file), file, name=name.canonical, device=device, precision=precision, image_px=image_px
    )


def _config(file: TowerFile) -> TowerConfig:
    """The architecture out of the metadata key `config`, a JSON object."""
    try:
        settings = json.loads(file.metadata["config"])
        values = {key: _fit(key, settings[key], kind) for key, kind in _KINDS.items()}
    except (KeyError, TypeError, ValueError) as problem:
        raise TeacherError(
            f"{file.path} does not describe its architecture ({problem}). Write it with "
            "examples/train_demo_teacher.py, or name the architecture: --teacher openclip:ARCHITECTURE@PATH."
        ) from None
    return TowerConfig(
        vision={
            "image_size": values["image_px"],
            "patch_size": values["patch_px"],
            "width": values["width"],
            "layers": values["layers"],
            "head_width": values["width"] // values["heads"],
            "mlp_ratio": values["mlp_ratio"],
        },
        embed_dim=values["embed_dim"],
        quick_gelu=values["quick_gelu"],
        mean=values["mean"],
        std=values["std"],
    )


def _fit(key: str, value: Any, kind: type) -> Any:
    if kind is list and isinstance(value, list) and len(value) == 3:
        return tuple(float(number) for number in value)
    if kind is float and isinstance(value, int | float) and value > 0:
        return float(value)
    if kind in (int, bool) and type(value) is kind and value >= (0 if kind is bool else 1):
        return value
    raise ValueError(f"its {key} cannot be {value!r}")
