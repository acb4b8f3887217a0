"""The built-in scenes with their masks, in the layout of ADE20K: what `caev2 segment` takes."""

from pathlib import Path

import numpy as np
from PIL import Image

from caev2.demo.glyphs import Split
from caev2.demo.scenes import draw_scene
from caev2.progress import Progress, Silent
from caev2.store.disk import writing

_FOLDERS = {"train": "training", "val": "validation"}


def write_masked_scenes(folder: Path, split: Split, count: int, seed: int, progress: Progress | None = None) -> Path:
    """Writes scenes 0 .. count−1 of a split and their masks: 0 ground, 1 + d a digit d, 11 any shape.

    Args:
        folder: Made if missing; gets `images/training/000000.png` and `annotations/training/000000.png`, and so on.
        split: Which scenes.
        count: How many.
        seed: Of the set.
        progress: Who is told.

    Raises:
        ConfigError: The extras of the demo are not installed.
        OutputError: The folder cannot be written.
    """
    progress = progress or Silent()
    places = {kind: folder / kind / _FOLDERS[split] for kind in ("images", "annotations")}
    progress.start(f"{split} scenes", count)
    with writing(folder):
        for place in places.values():
            place.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            scene = draw_scene(seed, split, index)
            _save_png(scene.image, places["images"] / f"{index:06d}.png")
            _save_png(scene.segmentation, places["annotations"] / f"{index:06d}.png")
            progress.advance(1)
    progress.finish()
    return folder


def _save_png(pixels: np.ndarray, path: Path) -> None:
    part = path.with_suffix(".part")
    Image.fromarray(pixels).save(part, format="png", compress_level=1)
    part.replace(path)
