"""Frozen features: what is judged, and how images become features.

A subject is anything that turns crops into features: a student of a run, a random start, a teacher, the pixels
themselves. Each offers one or more poolings; heads are chosen among them on held-out training images.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16, Int64, UInt8
from PIL import Image
from torch import Tensor

from caev2.errors import ConfigError, ImageUndecodable, OutputError, SourceError
from caev2.eval.cache import FeatureCache, Part, device_kind, images_digest
from caev2.eval.checks import check_informative
from caev2.eval.trunk import Pooled, Trunk
from caev2.progress import Progress
from caev2.store.disk import say_bytes
from caev2.store.images import ImageSource
from caev2.store.pixels.decode import Orientation, decode_rgb
from caev2.workers import in_order


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something whose features are judged."""

    name: str
    """What it is, in a few words."""
    size_px: int
    """Side of the crops it takes."""
    pool: Callable[[UInt8[Tensor, "image size size 3"]], Pooled]
    """Features of some crops, by pooling."""
    trunk: Trunk | None = None
    """Where features are pooled tokens: the tokens."""
    sha256: str | None = None
    """Identity of a teacher's weights."""
    identity: str | None = None
    """Equal for subjects with equal features; none: unknown, so features are not kept for another time."""

    @property
    def poolings(self) -> dict[str, tuple[str, ...]] | None:
        """What a linear head may look at, by name; none: each pooling by itself."""
        return None if self.trunk is None else self.trunk.poolings()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFeatures:
    """Features of all images of a split, by pooling, and their classes."""

    pooled: Pooled
    labels: Int64[Tensor, " image"]
    tokens: Float16[Tensor, "image token width"] | None = None
    """All tokens, where they were asked for."""


def evaluation_crop(
    data: bytes, size_px: int, resize_px: int, orientation: Orientation = "exif"
) -> UInt8[np.ndarray, "size size 3"]:
    """Resize the short side, bicubic, then crop the centre: the evaluation transform of the published protocols."""
    image = decode_rgb(data, orientation)
    width, height = image.size
    short = min(width, height)
    if short != resize_px:  # as torchvision's Resize: the long side is cut down to an integer
        image = image.resize(
            (int(resize_px * width / short), int(resize_px * height / short)), Image.Resampling.BICUBIC
        )
    left, top = round((image.width - size_px) / 2), round((image.height - size_px) / 2)
    return np.array(image.crop((left, top, left + size_px, top + size_px)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cropping:
    """How a worker turns a range of images into a batch."""

    source: ImageSource
    size_px: int
    resize_px: int
    orientation: Orientation

    def crops_of(self, images: range) -> UInt8[Tensor, "image size size 3"]:
        return torch.from_numpy(np.stack([self._crop(image) for image in images]))

    def _crop(self, image: int) -> UInt8[np.ndarray, "size size 3"]:
        try:
            return evaluation_crop(self.source.read(image), self.size_px, self.resize_px, self.orientation)
        except ImageUndecodable as problem:
            raise SourceError(
                f"{self.source.place(image)} cannot be decoded: {problem}. Every image of an "
                "evaluation counts; repair or remove it."
            ) from None


def check_labelled(source: ImageSource) -> None:
    """Check that every image has a class.

    Raises:
        SourceError: One has none.
    """
    if not source.classes:
        raise SourceError(
            f"{source.root} has no classes: put each image into a folder called like its class, or give labels as "
            "docs/images.md says for tars, tables and lists."
        )
    if (bare := next((image for image, label in enumerate(source.labels) if label < 0), None)) is not None:
        raise SourceError(f"{source.place(bare)} has no label. Give it one, or leave it out.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How images become features, but for whose they are."""

    resize_px: int
    """Short side before the centre crop."""
    device: str
    """Where the subject is."""
    orientation: Orientation = "exif"
    """Whether the EXIF orientation is applied; features mean most under the rule they were learnt by."""
    with_tokens: bool = False
    """Whether all tokens are kept too, in half precision."""
    token_limit_bytes: int = 8_000_000_000
    """How many bytes they may take."""
    batch: int = 128
    """Images at a time."""
    workers: int = 1
    """Processes that decode."""
    cache: Path | None = None
    """Below which features are kept for another time; none: they are not."""


def extract_features(subject: Subject, source: ImageSource, reading: Reading, progress: Progress) -> LabelledFeatures:
    """Features of every image of a source, in its order; what an earlier call has kept is not computed again.

    Raises:
        SourceError: An image cannot be decoded, or images have no classes.
        CheckpointError: The first features are not finite, or the same for different images.
        ConfigError: All tokens are asked for, and there are too many or none.
    """
    check_labelled(source)
    parts = _PARTS_OF_IMAGES // reading.batch * reading.batch or reading.batch
    ranges = [range(first, min(first + parts, len(source))) for first in range(0, len(source), parts)]
    cache = _cache_of(subject, source, reading, parts)
    found = {number: cache and cache.load(number, len(images)) for number, images in enumerate(ranges)}
    missing = {number: images for number, images in enumerate(ranges) if found[number] is None}
    progress.start(f"features of {subject.name}", len(source), len(source) - sum(map(len, missing.values())))
    for number, part in _compute(subject, source, missing, reading, progress):
        found[number] = part
        if cache is not None:
            cache = _keep(cache, number, part, progress)
    progress.finish()
    return _join([found[number] for number in range(len(ranges))], torch.tensor(source.labels))


_PARTS_OF_IMAGES = 1024
"""Images in one file of the cache: what an interruption costs at most."""


def _cache_of(subject: Subject, source: ImageSource, reading: Reading, part_images: int) -> FeatureCache | None:
    if reading.cache is None or subject.identity is None:
        return None
    question = {
        "subject": subject.identity,
        "images": images_digest(source),
        "size_px": subject.size_px,
        "resize_px": reading.resize_px,
        "orientation": reading.orientation,
        "device": device_kind(reading.device),
        "tokens": reading.with_tokens,
        "part_images": part_images,
    }
    return FeatureCache.of(reading.cache, question)


def _keep(cache: FeatureCache, number: int, part: Part, progress: Progress) -> FeatureCache | None:
    """Keep a part; a disk that is full or read-only costs the cache and not the probe."""
    try:
        cache.save(number, part)
    except OutputError as problem:
        progress.warn(f"Features are not kept for another time: {problem}")
        return None
    return cache


def _compute(
    subject: Subject, source: ImageSource, missing: dict[int, range], reading: Reading, progress: Progress
) -> Iterator[tuple[int, Part]]:
    """Parts as they are done, each with its number."""
    cropping = _Cropping(
        source=source, size_px=subject.size_px, resize_px=reading.resize_px, orientation=reading.orientation
    )
    cuts = {
        number: [*range(images.start, images.stop, reading.batch), images.stop] for number, images in missing.items()
    }
    batches = [range(*pair) for cut in cuts.values() for pair in pairwise(cut)]
    waiting = iter(in_order(cropping.crops_of, batches, workers=reading.workers))
    first = True
    for number, cut in cuts.items():
        pieces = []
        for _ in pairwise(cut):
            crops = next(waiting)
            piece = _features_of(subject, crops.to(reading.device), reading.with_tokens)
            if first:
                check_informative(piece.pooled, crops, subject.name)
                _refuse_too_many(subject, piece.tokens, len(source), reading.token_limit_bytes)
            first = False
            pieces.append(piece)
            progress.advance(len(crops))
        yield number, _concatenate(pieces)


@torch.inference_mode()
def _features_of(subject: Subject, crops: UInt8[Tensor, "image size size 3"], with_tokens: bool) -> Part:
    if not with_tokens:
        pooled, tokens = subject.pool(crops), None
    elif subject.trunk is None:
        raise ConfigError(
            f"{subject.name}: there are no tokens to attend to. Leave out --kind attentive, or {subject.name}."
        )
    else:
        pooled, tokens = subject.trunk.pool_and_keep(crops)
    kept = {name: features.float().cpu() for name, features in pooled.items()}
    return Part(pooled=kept, tokens=None if tokens is None else tokens.half().cpu())


def _refuse_too_many(subject: Subject, tokens: Tensor | None, images: int, limit_bytes: int) -> None:
    if tokens is None:
        return
    needed = tokens[0].numel() * tokens.element_size() * images
    if needed > limit_bytes:
        raise ConfigError(
            f"The tokens of {images:,} images of {subject.name} take {say_bytes(needed)} of memory "
            f"({tokens.shape[1]} tokens of {tokens.shape[2]} numbers, two bytes each), more than the "
            f"{say_bytes(limit_bytes)} allowed. Probe fewer images, or allow more: --token-gb {-(-needed // 10**9)}."
        )


def _concatenate(pieces: Sequence[Part]) -> Part:
    tokens = [piece.tokens for piece in pieces if piece.tokens is not None]
    names = pieces[0].pooled
    return Part(
        pooled={name: torch.cat([piece.pooled[name] for piece in pieces]) for name in names},
        tokens=torch.cat(tokens) if tokens else None,
    )


def _join(parts: Sequence[Part], labels: Int64[Tensor, " image"]) -> LabelledFeatures:
    whole = _concatenate(parts)
    return LabelledFeatures(pooled=whole.pooled, tokens=whole.tokens, labels=labels)
