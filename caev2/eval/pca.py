"""Patch latents as colours: one principal basis for everybody who is compared."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

_TAIL_PERCENT = 2.0  # of each colour channel, cut at both ends so that one odd patch does not fade all others


def joint_rgb(
    latents: Mapping[str, Float[Tensor, "image row column width"]],
) -> dict[str, UInt8[np.ndarray, "image row column 3"]]:
    """Colours of patches: their first three principal components, red the strongest.

    Directions count, lengths do not: latents are L2-normalised first, as in the loss. The basis is fitted on the
    latents of everybody together, each with its own mean removed, so equal colours mean equal directions only among
    those who live in one space: a teacher, and students that predict it.

    Args:
        latents: By name; all of one width.

    Returns:
        By the same names, one pixel a patch.
    """
    flat = {name: _centred(values) for name, values in latents.items()}
    basis = _principal_axes(torch.cat(list(flat.values())))
    scores = {name: values @ basis for name, values in flat.items()}
    return {name: _colour(scores[name]).reshape(*latents[name].shape[:3], 3) for name in latents}


def _centred(values: Float[Tensor, "image row column width"]) -> Float[Tensor, "patch width"]:
    directions = torch.nn.functional.normalize(values.flatten(0, 2).double(), dim=1)
    return directions - directions.mean(0)


def _principal_axes(values: Float[Tensor, "patch width"]) -> Float[Tensor, "width 3"]:
    """The three axes of largest variance; each points to where its largest coefficient is positive."""
    _, vectors = torch.linalg.eigh(values.T @ values)
    axes = vectors.flip(1)[:, :3]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return axes * largest.sign()


def _colour(scores: Float[Tensor, "patch 3"]) -> UInt8[np.ndarray, "patch 3"]:
    """Each channel stretched from its lower to its upper percentile."""
    values = scores.numpy()
    low, high = np.percentile(values, [_TAIL_PERCENT, 100 - _TAIL_PERCENT], axis=0)
    stretched = (values - low) / np.maximum(high - low, 1e-12)
    return (stretched.clip(0, 1) * 255).round().astype(np.uint8)
