"""What a store holds, to look at: crops beside the principal components of their targets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caev2.errors import StoreMismatch
from caev2.eval.pca import joint_rgb
from caev2.eval.plots import plot_grid
from caev2.store.draws import Draws
from caev2.store.pixels.crops import Crops
from caev2.store.reader import Store


def choose_shown(store: Store, count: int, seed: int = 0) -> list[int]:
    """Some valid images, spread over the store by chance, ascending."""
    valid = store.valid_images
    order = Draws("shown", seed).permutation(len(valid))
    return sorted(int(valid[place]) for place in order[:count])


def draw_store(
    store: Store, crops: Crops, target: str, images: Sequence[int], views: Sequence[int], path: Path
) -> Path:
    """A line for each image; for each view its crop, and its target's patches as colours.

    Equal colours are equal directions, in one basis for the whole picture.

    Args:
        store: Whose rows.
        crops: Its pixels.
        target: Name of the target.
        images: Numbers of the images.
        views: Which views.
        path: A PNG file.

    Raises:
        StoreMismatch: There is no such view or target, or the patches are no square.
        PixelDrift: The images are not what the teacher saw.
        ConfigError: matplotlib is missing.
    """
    for view in views:
        if not 0 <= view < store.views:
            raise StoreMismatch(f"{store.path} has no view {view}: it holds {store.views}, counted from 0.")
    latents = {f"target, view {view}": _grid(store, target, view, images) for view in views}
    colours, columns = joint_rgb(latents), {}
    for view in views:
        columns[f"crop, view {view}"] = np.stack([crops.crop(view, image) for image in images])
        columns[f"target, view {view}"] = colours[f"target, view {view}"]
    return plot_grid(columns, [_short(store.keys[image]) for image in images], path)


def _grid(store: Store, target: str, view: int, images: Sequence[int]) -> Tensor:
    rows = torch.from_numpy(store.read_rows(target, view, images).astype(np.float32))
    side = round((rows.shape[1] - 1) ** 0.5)
    if side * side != rows.shape[1] - 1:
        raise StoreMismatch(f"{store.path}: {rows.shape[1] - 1} patches of target {target!r} are no square.")
    return rows[:, 1:].unflatten(1, (side, side))


_MOST_LETTERS = 24


def _short(key: str) -> str:
    """The end of a key, which tells images apart best."""
    return key if len(key) <= _MOST_LETTERS else "…" + key[1 - _MOST_LETTERS :]
