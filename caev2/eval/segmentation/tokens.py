"""Patch tokens of masked images: computed once, kept for another time, held in half precision."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float16, UInt8
from torch import Tensor

from caev2.errors import CheckpointError
from caev2.eval.cache import PART_IMAGES, FeatureCache, device_kind, go_on, images_digest
from caev2.eval.checks import check_finite
from caev2.eval.features import Reading, Subject, refuse_edges, refuse_too_many, trunk_of
from caev2.eval.segmentation.masks import Ignore, MaskedCropping, MaskedImages
from caev2.eval.shares import BY_ITSELF, Tensors, in_shares
from caev2.eval.trunk import normalise_tokens
from caev2.pretrain.together.ranks import Company
from caev2.progress import Progress
from caev2.workers import in_order


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedTokens:
    """What a head is trained and judged on."""

    maps: Float16[Tensor, "image level width row column"]
    """Patch tokens of one block or several, as maps."""
    labels: UInt8[Tensor, "image height width2"]
    """Of each pixel its class, or `IGNORED`."""


def read_tokens(
    subject: Subject,
    source: MaskedImages,
    reading: Reading,
    *,
    blocks: Sequence[int],
    ignore: Ignore,
    progress: Progress,
    company: Company = BY_ITSELF,
) -> MaskedTokens | None:
    """Patch tokens and labels of every image, in order; what an earlier call has kept is not computed again.

    Several ranks share the images; the first has all tokens in the end, the others nothing.

    Args:
        subject: Whose tokens.
        source: Images and masks.
        reading: How images become tokens.
        blocks: After which blocks they are read, without gains and offsets normalised; none: after the final norm.
        ignore: The number of a mask that counts for nobody.
        progress: Who is told.
        company: Who shares the work.

    Raises:
        SourceError: An image or a mask cannot be used.
        ConfigError: The subject has no tokens, they take too much memory, or images are resized below the crop.
        CheckpointError: Tokens are not finite, or no square grid.
    """
    company.together(partial(refuse_edges, subject, reading))
    part_images = PART_IMAGES // reading.batch * reading.batch or reading.batch
    cache = company.first(partial(_cache_of, subject, source, reading, tuple(blocks), ignore, part_images))
    compute = partial(_compute, subject, source, reading, tuple(blocks), ignore, progress)
    found = go_on(
        f"tokens of {subject.name}",
        partial(in_shares, compute, batch=reading.batch, company=company, progress=progress),
        len(source),
        part_images=part_images,
        cache=cache,
        progress=progress,
        company=company,
    )
    return MaskedTokens(maps=found["maps"], labels=found["labels"]) if company.ranks.is_first else None


def _cache_of(
    subject: Subject, source: MaskedImages, reading: Reading, blocks: tuple[int, ...], ignore: Ignore, part_images: int
) -> FeatureCache | None:
    if reading.cache is None or subject.identity is None:
        return None
    question = {
        "subject": subject.identity,
        "images": images_digest(source.images),
        "masks": images_digest(source.masks),
        "size_px": subject.size_px,
        "resize_px": reading.resize_px,
        "orientation": reading.orientation,
        "device": device_kind(reading.device),
        "blocks": list(blocks),
        "ignore": ignore,
        "part_images": part_images,
    }
    return FeatureCache.of(reading.cache, question)


def _compute(
    subject: Subject,
    source: MaskedImages,
    reading: Reading,
    blocks: tuple[int, ...],
    ignore: Ignore,
    progress: Progress,
    batches: Iterable[Sequence[int]],
) -> Iterator[Tensors]:
    cropping = MaskedCropping(
        source=source,
        size_px=subject.size_px,
        resize_px=reading.resize_px,
        orientation=reading.orientation,
        ignore=ignore,
    )
    for crops, labels in in_order(cropping.crops_of, batches, workers=reading.workers):
        tokens = _tokens_of(subject, crops.to(reading.device), blocks)
        refuse_too_many(subject, tokens.flatten(2), len(source), reading.token_limit_bytes)
        check_finite(tokens.flatten(1), f"{subject.name} (tokens)")
        progress.advance(len(crops))
        yield {"maps": _as_maps(tokens, subject.name), "labels": labels}


@torch.inference_mode()
def _tokens_of(
    subject: Subject, crops: UInt8[Tensor, "image size size 3"], blocks: tuple[int, ...]
) -> Float16[Tensor, "image patch level width"]:
    last, outputs = trunk_of(subject).read(crops, list(dict.fromkeys(blocks)))
    levels = dict(zip(dict.fromkeys(blocks), map(normalise_tokens, outputs), strict=True))
    chosen = [levels[block] for block in blocks] or [last]
    return torch.stack([tokens[:, 1:] for tokens in chosen], dim=2).half().cpu()


def _as_maps(
    tokens: Float16[Tensor, "image patch level width"], name: str
) -> Float16[Tensor, "image level width row column"]:
    side = round(tokens.shape[1] ** 0.5)
    if side * side != tokens.shape[1]:
        raise CheckpointError(f"The {tokens.shape[1]} patches of {name} are no square. Judge another encoder.")
    return tokens.unflatten(1, (side, side)).permute(0, 3, 4, 1, 2).contiguous()
