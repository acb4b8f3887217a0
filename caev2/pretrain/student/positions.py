"""The fixed two-dimensional sine-cosine positions of encoder and regressor."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def position_table(grid_size: int, width: int) -> Float[Tensor, "1 token width"]:
    """Positions of the class token (zeros) and of every patch, row-major.

    A patch at row r, column c gets `[sin(r·ω), cos(r·ω), sin(c·ω), cos(c·ω)]`, `ω_k = 10000^(−k /
    (width/4))`: the row comes first. MAE's table puts the column first; the two are not interchangeable.

    Args:
        grid_size: Patches along one side of the image.
        width: Width of a latent, a multiple of 4.
    """
    # float64 until the end, so that every machine rounds to the same float32
    frequency = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    angle = np.outer(np.arange(grid_size), frequency)
    wave = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    patches = np.concatenate([np.repeat(wave, grid_size, axis=0), np.tile(wave, (grid_size, 1))], axis=1)
    table = np.concatenate([np.zeros((1, width)), patches])
    return torch.from_numpy(table.astype(np.float32))[None]
