"""Encoding rows on the device that computed them, so that no CPU has to keep up with a GPU.

The same rules as `caev2.store.codecs`, the reference in numpy, in the same order; only norms are summed in another one,
so a code here and there is the neighbouring one. On a CPU the reference itself is used: its bits are the same on every
machine. `klt` and `pq`, for studies, have no encoder here.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float16, Float32, UInt8
from torch import Tensor

from caev2.store.codecs.codec import Tables, per_token
from caev2.store.codecs.gaussian import lloyd_max_levels
from caev2.store.codecs.rotation import rotation_matrix
from caev2.store.codecs.statistics import reciprocal

Quantise = Callable[[Float32[Tensor, "view token width"]], UInt8[Tensor, "view token byte"]]
Encode = Callable[
    [Float16[Tensor, "view token width"]], Float16[Tensor, "view token width"] | UInt8[Tensor, "view token byte"]
]


def encoder_for(codec: str, tables: Tables, tokens: int, device: torch.device) -> Encode | None:
    """What makes stored rows of latents on a device; none for a codec that is encoded elsewhere.

    Args:
        codec: Its name.
        tables: What it has learned.
        tokens: Tokens of a row.
        device: Where the latents are.
    """
    if codec == "float16":
        return lambda latents: latents
    if codec == "int8":
        return _encode_with(_int8(tables, tokens, device))
    if codec == "lloyd4":
        return _encode_with(_lloyd4(tables, tokens, device))
    return None


def _encode_with(quantise: Quantise) -> Encode:
    def encode(latents: Float16[Tensor, "view token width"]) -> UInt8[Tensor, "view token byte"]:
        values = latents.float()
        norms = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
        rounded = norms.half()
        stored = rounded > 0
        codes = quantise(values / torch.where(stored, norms, torch.inf))
        codes = torch.where(stored, codes, torch.zeros((), dtype=torch.uint8, device=codes.device))
        return torch.cat([codes, rounded.view(torch.uint8)], dim=-1)

    return encode


def _int8(tables: Tables, tokens: int, device: torch.device) -> Quantise:
    mean, factors = _on(device, tables["mean"], tokens), _on(device, reciprocal(tables["scale"]), tokens)

    def quantise(directions: Tensor) -> Tensor:
        steps = (directions - mean).mul_(factors).round_().clamp_(-127, 127)
        return steps.add_(128).to(torch.uint8)

    return quantise


def _lloyd4(tables: Tables, tokens: int, device: torch.device) -> Quantise:
    mean, factors = _on(device, tables["mean"], tokens), _on(device, reciprocal(tables["scale"]), tokens)
    width = mean.shape[-1]
    rotation = torch.from_numpy(rotation_matrix(width).copy()).to(device)
    levels = torch.from_numpy(lloyd_max_levels(4).copy()).to(device)
    upper = levels[8:]
    thresholds = (upper[1:] + upper[:-1]) / 2

    def quantise(directions: Tensor) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            rotated = ((directions - mean) @ rotation.T).mul_(factors)
        above = torch.bucketize(rotated.abs(), thresholds, out_int32=True)
        codes = torch.where(rotated < 0, 7 - above, 8 + above).to(torch.uint8)
        if width % 2:  # of an odd width the last byte holds one channel
            codes = torch.cat([codes, torch.zeros_like(codes[..., :1])], dim=-1)
        return codes[..., 0::2] | codes[..., 1::2] << 4

    return quantise


def _on(device: torch.device, by_kind: Float32[np.ndarray, "2 width"], tokens: int) -> Float32[Tensor, "token width"]:
    return torch.from_numpy(per_token(by_kind, tokens).copy()).to(device)
