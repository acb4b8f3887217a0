"""Features kept for another time, in parts: a probe that was interrupted, or is asked again, goes on with them.

A folder for each question: whose weights (by digest), which images (keys, labels, and size and time of each file), how
they were cut, and on what kind of device features were computed. In it lies a safetensors file for each part of the
images, written whole and verified by a digest when read. Whatever is missing, damaged or cannot be read is computed
again.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from caev2.errors import OutputError
from caev2.eval.shares import Tensors
from caev2.pretrain.together.ranks import Company
from caev2.pretrain.weights.tensor_file import DAMAGED, digest_tensors, read_tensors
from caev2.progress import Progress
from caev2.recipe import fingerprint
from caev2.store.disk import write_whole, writing
from caev2.store.images import ImageSource
from caev2.store.sources.unchanged import stamp_of

_KIND = "caev2-features-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCache:
    """The answers to one question."""

    folder: Path

    @classmethod
    def of(cls, place: Path, question: dict[str, Any]) -> "FeatureCache":
        """The folder of a question below a place."""
        return cls(folder=place / fingerprint(question))

    def load(self, number: int, images: int) -> Tensors | None:
        """A part, if it is there, whole, and of so many images."""
        try:
            tensors, _ = read_tensors(self._path(number), _KIND)
        except (OSError, *DAMAGED):
            return None
        return tensors if all(len(tensor) == images for tensor in tensors.values()) else None

    def save(self, number: int, part: Tensors) -> None:
        """Keep a part; of several writers the last one's stays.

        Raises:
            OutputError: It cannot be written.
        """
        tensors, facts = {name: tensor.contiguous() for name, tensor in part.items()}, {"format": _KIND}
        stated = {**facts, "digest": digest_tensors(tensors, facts)}
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            data = safetensors.torch.save(tensors, {"caev2": json.dumps(stated)})
            write_whole(self._path(number), data, scratch=self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.safetensors"


PART_IMAGES = 1024
"""Images in one file: what an interruption costs at most."""

Compute = Callable[[Sequence[range]], Iterator[Tensors]]
"""Makes the parts of some ranges of images, in order, at the first rank; every tensor has a row for each image."""


def go_on(
    what: str,
    compute: Compute,
    images: int,
    *,
    part_images: int,
    cache: FeatureCache | None,
    progress: Progress,
    company: Company,
) -> Tensors:
    """Tensors of all images: parts that were kept, and the others computed and kept. Other ranks than the first only
    help, and get nothing.

    Args:
        what: Name of the work.
        compute: Makes parts.
        images: How many there are.
        part_images: In each part.
        cache: Where parts are kept; none: nowhere. One that cannot be written costs a warning.
        progress: Who is told.
        company: Who shares the work; the first rank reads and writes what is kept.
    """
    ranges = cut_in_parts(images, part_images)
    whole: Tensors = {}
    missing = company.first(partial(_take_kept, whole, cache, ranges, images))
    progress.start(what, images, images - sum(len(ranges[number]) for number in missing))
    for number, part in zip(missing, compute([ranges[number] for number in missing]), strict=True):
        _put(whole, part, ranges[number], images)
        if cache is not None and company.ranks.is_first:
            cache = _keep(cache, number, part, progress)
    progress.finish()
    return whole


def _take_kept(whole: Tensors, cache: FeatureCache | None, ranges: Sequence[range], images: int) -> list[int]:
    """Put what was kept into its rows, and return the numbers of the other parts."""
    missing = []
    for number, rows in enumerate(ranges):
        kept = None if cache is None else cache.load(number, len(rows))
        if kept is None:
            missing.append(number)
        else:
            _put(whole, kept, rows, images)
    return missing


def _put(whole: Tensors, part: Tensors, rows: range, images: int) -> None:
    """Copy a part to its rows: joining all parts at the end would take twice the memory."""
    for name, tensor in part.items():
        if name not in whole:
            whole[name] = tensor.new_empty((images, *tensor.shape[1:]))
        whole[name][rows.start : rows.stop] = tensor


def cut_in_parts(images: int, part_images: int) -> list[range]:
    """Ranges of that many images; the last one has what is left."""
    return [range(first, min(first + part_images, images)) for first in range(0, images, part_images)]


def _keep(cache: FeatureCache, number: int, part: Tensors, progress: Progress) -> FeatureCache | None:
    """Keep a part; a disk that is full or read-only costs the cache and not the probe."""
    try:
        cache.save(number, part)
    except OutputError as problem:
        progress.warn(f"Features are not kept for another time: {problem}")
        return None
    return cache


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
