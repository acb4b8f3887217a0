"""Frozen features: what is judged, and how images become features.

A subject is anything that turns crops into features: a student of a run, a random start, a teacher, the pixels
themselves. Each offers one or more poolings; heads are chosen among them on held-out training images.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float16, Int64, Shaped, UInt8
from torch import Tensor

from caev2.errors import ConfigError, SourceError
from caev2.eval.cache import PART_IMAGES, FeatureCache, device_kind, go_on, images_digest
from caev2.eval.checks import check_informative
from caev2.eval.crops import Cropping
from caev2.eval.shares import BY_ITSELF, Tensors, in_shares
from caev2.eval.trunk import Pooled, Trunk
from caev2.pretrain.together.ranks import Company
from caev2.progress import Progress
from caev2.store.disk import say_bytes
from caev2.store.images import ImageSource
from caev2.store.pixels.decode import Orientation
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


def extract_features(
    subject: Subject,
    source: ImageSource,
    reading: Reading,
    progress: Progress,
    company: Company = BY_ITSELF,
) -> LabelledFeatures:
    """Features of every image of a source, in its order; what an earlier call has kept is not computed again.

    Several ranks share the images, each taking some batches; the first has all features in the end, the others none.

    Raises:
        SourceError: An image cannot be decoded, or images have no classes.
        CheckpointError: The first features are not finite, or the same for different images.
        ConfigError: All tokens are asked for, and there are too many or none; or images are resized below the crop.
    """
    company.together(partial(check_labelled, source))
    company.together(partial(refuse_edges, subject, reading))
    part_images = PART_IMAGES // reading.batch * reading.batch or reading.batch
    cache = company.first(partial(_cache_of, subject, source, reading, part_images))
    compute = partial(_compute, subject, source, reading, progress, company.ranks.is_first)
    found = go_on(
        f"features of {subject.name}",
        partial(in_shares, compute, batch=reading.batch, company=company, progress=progress),
        len(source),
        part_images=part_images,
        cache=cache,
        progress=progress,
        company=company,
    )
    tokens = found.pop(_TOKENS, None)
    return LabelledFeatures(pooled=found, tokens=tokens, labels=torch.tensor(source.labels))


def refuse_edges(subject: Subject, reading: Reading) -> None:
    """Refuse crops that are larger than the images they are cut from: their edges would be black.

    Raises:
        ConfigError: The short side is too short.
    """
    if reading.resize_px < subject.size_px:
        raise ConfigError(
            f"The short side of images is resized to {reading.resize_px} pixels, and the crops of {subject.name} have "
            f"{subject.size_px}: their edges would be black. Give --resize {subject.size_px} or more."
        )


_TOKENS = "tokens"  # no pooling has this name


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


def _compute(
    subject: Subject,
    source: ImageSource,
    reading: Reading,
    progress: Progress,
    has_first: bool,
    batches: Iterable[Sequence[int]],
) -> Iterator[Tensors]:
    """The features of some batches of images; whoever has the first one looks at it."""
    cropping = Cropping(
        source=source, size_px=subject.size_px, resize_px=reading.resize_px, orientation=reading.orientation
    )
    unchecked = has_first
    for crops in in_order(cropping.crops_of, batches, workers=reading.workers):
        found = _features_of(subject, crops.to(reading.device), reading.with_tokens)
        if unchecked:
            _check_first(subject, found, crops, len(source), reading.token_limit_bytes)
        unchecked = False
        progress.advance(len(crops))
        yield found


@torch.inference_mode()
def _features_of(subject: Subject, crops: UInt8[Tensor, "image size size 3"], with_tokens: bool) -> Tensors:
    if not with_tokens:
        pooled, tokens = subject.pool(crops), {}
    else:
        pooled, last = trunk_of(subject).pool_and_keep(crops)
        tokens = {_TOKENS: last.half().cpu()}
    return {name: features.float().cpu() for name, features in pooled.items()} | tokens


def trunk_of(subject: Subject) -> Trunk:
    """The tokens of a subject.

    Raises:
        ConfigError: It has none.
    """
    if subject.trunk is None:
        raise ConfigError(
            f"{subject.name}: there are no tokens to look at. Leave out {subject.name}, or the probe of tokens."
        )
    return subject.trunk


def _check_first(
    subject: Subject, found: Tensors, crops: UInt8[Tensor, "image size size 3"], images: int, limit: int
) -> None:
    """Look at the features of the first images, while little time is spent."""
    check_informative({name: each for name, each in found.items() if name != _TOKENS}, crops, subject.name)
    if _TOKENS in found:
        refuse_too_many(subject, found[_TOKENS], images, limit)


def refuse_too_many(subject: Subject, tokens: Shaped[Tensor, "image token _"], images: int, limit_bytes: int) -> None:
    """Refuse tokens that take too much memory, seeing those of the first images.

    Raises:
        ConfigError: They do.
    """
    needed = tokens[0].numel() * tokens.element_size() * images
    if needed > limit_bytes:
        raise ConfigError(
            f"The tokens of {images:,} images of {subject.name} take {say_bytes(needed)} of memory "
            f"({tokens.shape[1]} tokens of {tokens.shape[2]} numbers, two bytes each), more than the "
            f"{say_bytes(limit_bytes)} allowed. Probe fewer images, or allow more: --token-gb {-(-needed // 10**9)}."
        )
