"""The form in which a target is learnt, where that is not its direction alone: an ablation."""

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from caev2.errors import ConfigError
from caev2.pretrain.learning.objective import TargetNorm
from caev2.store.reader import Store

WHITENING_IMAGES = 2048
"""Images, evenly spread over the store, whose latents give mean and covariance: 400,000 patches of ViT-B/16."""
SMALLEST_VARIANCE = 1e-4
"""Of a direction, relative to the mean over all: below it, whitening would amplify what codecs leave of noise."""
NORM_EPSILON = 1e-6
_BATCH = 64


class TargetForm(nn.Module):
    """Latents as the teacher gives them to latents as the loss wants them.

    Args:
        norm: Which form.
        whitening: For `whiten`, of class token and patches, what `fit_whitening` gave.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, norm: TargetNorm, whitening: tuple[np.ndarray, np.ndarray] | None = None):
        super().__init__()
        self.norm = norm
        if norm == "whiten":
            if whitening is None:
                raise ConfigError("Targets can be whitened only with a store's statistics: train from a store.")
            self.register_buffer("mean", torch.from_numpy(whitening[0]), persistent=False)
            self.register_buffer("matrix", torch.from_numpy(whitening[1]), persistent=False)

    def forward(self, latents: Float[Tensor, "image token width"]) -> Float[Tensor, "image token width"]:
        """The same tokens in the other form; class token first."""
        if self.norm == "l2":
            return nn.functional.normalize(latents.float(), dim=-1)
        if self.norm == "layer_norm":
            return nn.functional.layer_norm(latents.float(), latents.shape[-1:], eps=NORM_EPSILON)
        if self.norm == "whiten":
            centred = latents.float()
            first, others = centred[:, :1] - self.mean[0], centred[:, 1:] - self.mean[1]
            return torch.cat([first @ self.matrix[0], others @ self.matrix[1]], dim=1)
        return latents


def fit_whitening(
    store: Store, target: str, latents_of: nn.Module
) -> tuple[Float32[np.ndarray, "kind width"], Float32[np.ndarray, "kind width width"]]:
    """Mean and whitening matrix (symmetric, so that channels stay near themselves) of class token and patches.

    Args:
        store: A function of whose rows alone they are.
        target: Of which target.
        latents_of: Decodes rows (`TargetDecoder`).
    """
    valid = store.valid_images
    chosen = valid[np.unique(np.linspace(0, len(valid) - 1, min(len(valid), WHITENING_IMAGES)).astype(int))]
    classes, patches = _Moments(), _Moments()
    for begin in range(0, len(chosen), _BATCH):
        rows = torch.from_numpy(store.read_stored(target, 0, chosen[begin : begin + _BATCH]))
        latents = latents_of(rows).double().numpy()
        classes.add(latents[:, 0])
        patches.add(latents[:, 1:].reshape(-1, latents.shape[-1]))
    means, matrices = zip(classes.whiten(), patches.whiten(), strict=True)
    return np.stack(means).astype(np.float32), np.stack(matrices).astype(np.float32)


class _Moments:
    """Mean and covariance of vectors that come in batches."""

    def __init__(self):
        self._count, self._sum, self._products = 0, np.zeros(()), np.zeros(())

    def add(self, vectors: np.ndarray) -> None:
        self._count += len(vectors)
        self._sum = self._sum + vectors.sum(0)
        self._products = self._products + vectors.T @ vectors

    def whiten(self) -> tuple[np.ndarray, np.ndarray]:
        mean = self._sum / self._count
        variances, directions = np.linalg.eigh(self._products / self._count - np.outer(mean, mean))
        floor = max(SMALLEST_VARIANCE * float(variances.mean()), np.finfo(np.float64).tiny)
        return mean, (directions / np.sqrt(np.maximum(variances, floor))) @ directions.T
