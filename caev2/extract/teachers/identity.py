"""The identity of a teacher: one digest of its image tower's weights, whichever file they came from.

OpenAI's archive, a state dict and a safetensors file of one teacher hold the same numbers in different
containers and, often, different precisions. The digest is therefore taken over what they share: the tensors
of the image tower, in OpenAI's names without the `visual.` prefix, as float32, sorted by name, before
positions are resized.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def tower_sha256(weights: Mapping[str, Tensor]) -> str:
    """The sha256 over names, shapes and little-endian float32 bytes of all tensors, in hex.

    Every name and every tensor is preceded by its length, so no two sets of weights share one byte stream.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
        header = f"{name}:{','.join(map(str, values.shape))}".encode()
        digest.update(len(header).to_bytes(8, "little"))
        digest.update(header)
        digest.update(values.nbytes.to_bytes(8, "little"))
        digest.update(values.data)
    return digest.hexdigest()
