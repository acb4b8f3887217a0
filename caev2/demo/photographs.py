"""The real photographs that scikit-image and scikit-learn carry inside their wheels: nothing is downloaded.

Ten are in colour. The six grey ones (bricks, grass, coins, the moon, ...) are kept as three equal channels,
since the scenes want grounds that differ in texture and not in hue alone. Drawings and pages of text are
left out.
"""

import importlib.resources
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from caev2.errors import ConfigError, OutputError

_SKIMAGE, _SKLEARN = "skimage.data", "sklearn.datasets.images"

PHOTOGRAPH_FILES: dict[str, tuple[str, str]] = {
    "astronaut": (_SKIMAGE, "astronaut.png"),
    "brick": (_SKIMAGE, "brick.png"),
    "camera": (_SKIMAGE, "camera.png"),
    "chelsea": (_SKIMAGE, "chelsea.png"),
    "china": (_SKLEARN, "china.jpg"),
    "coffee": (_SKIMAGE, "coffee.png"),
    "coins": (_SKIMAGE, "coins.png"),
    "flower": (_SKLEARN, "flower.jpg"),
    "grass": (_SKIMAGE, "grass.png"),
    "gravel": (_SKIMAGE, "gravel.png"),
    "hubble": (_SKIMAGE, "hubble_deep_field.jpg"),
    "ihc": (_SKIMAGE, "ihc.png"),
    "moon": (_SKIMAGE, "moon.png"),
    "motorcycle": (_SKIMAGE, "motorcycle_left.png"),
    "retina": (_SKIMAGE, "retina.jpg"),
    "rocket": (_SKIMAGE, "rocket.jpg"),
}
"""Name to (package, file), sorted by name; the position of a name here is its label as a ground."""

PICTURE_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
"""Three with one clear subject each (a person, a cat, a cup): good for pictures of patch latents."""


def shipped_file(name: str) -> Traversable:
    """Where the wheel keeps the photograph `name`.

    Raises:
        ConfigError: scikit-image or scikit-learn is not installed, or a version of it that lacks this file.
    """
    package, file = PHOTOGRAPH_FILES[name]
    advice = 'install the extras of the demo: pip install "caev2[demo,plots]"'
    try:
        path = importlib.resources.files(package) / file
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"demo: the photograph {name!r} is in {package}, which cannot be imported ({missing}); {advice}"
        ) from missing
    if not path.is_file():
        raise ConfigError(f"demo: {package} is installed but has no file {file}; {advice}")
    return path


@cache
def photograph(name: str) -> UInt8[np.ndarray, "height width 3"]:
    """One photograph as RGB; read-only, since every caller shares it."""
    with shipped_file(name).open("rb") as stream, Image.open(stream) as image:
        pixels = np.asarray(image.convert("RGB"))
    pixels.setflags(write=False)
    return pixels


def photographs() -> dict[str, UInt8[np.ndarray, "height width 3"]]:
    """All photographs by name, in sorted order."""
    return {name: photograph(name) for name in PHOTOGRAPH_FILES}


def write_photographs(folder: Path) -> list[Path]:
    """Copies the shipped files byte for byte into `folder` as `<name>.png` or `<name>.jpg`.

    Returns:
        The files written, sorted by name.

    Raises:
        ConfigError: the extras are not installed.
        OutputError: the folder cannot be written.
    """
    sources = {name: shipped_file(name) for name in PHOTOGRAPH_FILES}
    paths = [folder / f"{name}{Path(source.name).suffix}" for name, source in sources.items()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, source in zip(paths, sources.values(), strict=True):
            path.write_bytes(source.read_bytes())
    except OSError as refused:
        raise OutputError(
            f"{folder}: the photographs cannot be written there ({refused}); choose a writable folder"
        ) from refused
    return paths
