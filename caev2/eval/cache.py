"""Features kept for another time, in parts: a probe that was interrupted, or is asked again, goes on with them.

A folder for each question: whose weights (by digest), which images (keys, labels, and size and time of each file), how
they were cut, and on what kind of device features were computed. In it lies a safetensors file for each part of the
images, written whole and verified by a digest when read. Whatever is missing, damaged or cannot be read is computed
again.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from caev2.eval.trunk import Pooled
from caev2.pretrain.tensor_file import DAMAGED, digest_tensors, read_tensors
from caev2.recipe import fingerprint
from caev2.store.disk import write_whole, writing
from caev2.store.images import ImageSource
from caev2.store.sources.unchanged import stamp_of

_KIND = "caev2-features-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Features of some images: one vector each in several ways, and all tokens where they were asked for."""

    pooled: Pooled
    tokens: Tensor | None

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name."""
        return {**self.pooled, **({} if self.tokens is None else {_TOKENS: self.tokens})}


_TOKENS = "tokens"  # no pooling has this name


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCache:
    """The answers to one question."""

    folder: Path

    @classmethod
    def of(cls, place: Path, question: dict[str, Any]) -> "FeatureCache":
        """The folder of a question below a place."""
        return cls(folder=place / fingerprint(question))

    def load(self, number: int, images: int) -> Part | None:
        """A part, if it is there, whole, and of so many images."""
        try:
            tensors, _ = read_tensors(self._path(number), _KIND)
        except (OSError, *DAMAGED):
            return None
        if any(len(tensor) != images for tensor in tensors.values()):
            return None
        tokens = tensors.pop(_TOKENS, None)
        return Part(pooled=tensors, tokens=tokens)

    def save(self, number: int, part: Part) -> None:
        """Keep a part; of several writers the last one's stays.

        Raises:
            OutputError: It cannot be written.
        """
        tensors, facts = {name: tensor.contiguous() for name, tensor in part.tensors().items()}, {"format": _KIND}
        stated = {**facts, "digest": digest_tensors(tensors, facts)}
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            data = safetensors.torch.save(tensors, {"caev2": json.dumps(stated)})
            write_whole(self._path(number), data, scratch=self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.safetensors"


def images_digest(source: ImageSource) -> str:
    """Equal for images that are the same and have not been written to since.

    Raises:
        SourceError: One is not there any more.
    """
    digest = hashlib.sha256(source.digest().encode())
    for path in dict.fromkeys(source.paths):
        digest.update(json.dumps([path, stamp_of(source.root / path)]).encode())
    return digest.hexdigest()


def device_kind(device: str) -> str:
    """What decides the last bits of features: a processor, or the model of a GPU."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu"
