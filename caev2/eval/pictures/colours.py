"""Numbers as colours, and marks on images."""

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

_VIRIDIS = np.array(
    [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], dtype=np.float64
)  # matplotlib's map at its quarters: brightness grows evenly, also for the colour-blind
_RED = (230, 30, 30)


def heat(
    values: Float[Tensor, "image row column"],
    low: Float[Tensor, " image"] | None = None,
    high: Float[Tensor, " image"] | None = None,
) -> UInt8[np.ndarray, "image row column 3"]:
    """Colours from dark blue to yellow.

    Args:
        values: What is shown.
        low: What is darkest, image by image; none: its least value.
        high: What is brightest; none: its largest.
    """
    shown = values.double().numpy()
    darkest = shown.min((1, 2)) if low is None else low.double().numpy()
    brightest = shown.max((1, 2)) if high is None else high.double().numpy()
    reach = np.maximum(brightest - darkest, 1e-12)
    share = ((shown - darkest[:, None, None]) / reach[:, None, None]).clip(0, 1)
    places = np.linspace(0, 1, len(_VIRIDIS))
    channels = [np.interp(share, places, _VIRIDIS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def mark_patch(
    crops: UInt8[np.ndarray, "image size size 3"], row: int, column: int, grid: int
) -> UInt8[np.ndarray, "image size size 3"]:
    """The crops with a red frame around one patch of a grid."""
    marked, size = crops.copy(), crops.shape[1] // grid
    width = max(1, size // 8)
    top, left = row * size, column * size
    frame = np.zeros(crops.shape[1:3], dtype=bool)
    frame[top : top + size, left : left + size] = True
    frame[top + width : top + size - width, left + width : left + size - width] = False
    marked[:, frame] = _RED
    return marked
