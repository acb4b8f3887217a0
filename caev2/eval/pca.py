"""Patch latents as colours: one principal basis for everybody who is compared."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

_TAIL_PERCENT = 2.0  # of each colour channel, cut at both ends so that one odd patch does not fade all others


def joint_rgb(
    latents: Mapping[str, Float[Tensor, "image row column width"]], fitted_on: Sequence[str] | None = None
) -> dict[str, UInt8[np.ndarray, "image row column 3"]]:
    """Colours of patches: their first three principal components, red the strongest.

    Directions count, lengths do not: latents are L2-normalised first, as in the loss. Mean, basis and stretch are
    fitted on the patches of `fitted_on` together and are the same for everybody, so equal colours are equal directions,
    and whoever tells no patches apart has one colour. A stretch of its own would make noise as vivid as meaning.
    That holds among those who live in one space: a teacher, and students that predict it.

    Args:
        latents: By name; all of one width.
        fitted_on: Names whose patches decide what a colour means; none: all.

    Returns:
        By the same names, one pixel a patch.
    """
    flat = {name: _directions(values) for name, values in latents.items()}
    fitted = torch.cat([flat[name] for name in (latents if fitted_on is None else fitted_on)])
    mean = fitted.mean(0)
    basis = _principal_axes(fitted - mean)
    low, high = np.percentile(((fitted - mean) @ basis).numpy(), [_TAIL_PERCENT, 100 - _TAIL_PERCENT], axis=0)
    colours = {}
    for name, values in flat.items():
        stretched = (((values - mean) @ basis).numpy() - low) / np.maximum(high - low, 1e-12)
        colours[name] = (stretched.clip(0, 1) * 255).round().astype(np.uint8).reshape(*latents[name].shape[:3], 3)
    return colours


def _directions(values: Float[Tensor, "image row column width"]) -> Float[Tensor, "patch width"]:
    return torch.nn.functional.normalize(values.flatten(0, 2).double(), dim=1)


def _principal_axes(values: Float[Tensor, "patch width"]) -> Float[Tensor, "width 3"]:
    """The three axes of largest variance; each points to where its largest coefficient is positive."""
    _, vectors = torch.linalg.eigh(values.T @ values)
    axes = vectors.flip(1)[:, :3]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return axes * largest.sign()
