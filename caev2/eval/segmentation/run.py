"""Segmentation on frozen patch tokens, everybody on the same images and masks."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from caev2.errors import ConfigError, SourceError
from caev2.eval.entrants import Entrant, Role, RunFacts, in_order_of_hope, reasons_missing
from caev2.eval.features import Reading, trunk_of
from caev2.eval.segmentation.confusion import SegmentationScore, score_masks
from caev2.eval.segmentation.heads import blocks_read
from caev2.eval.segmentation.masks import Ignore, MaskedImages, open_masked_images
from caev2.eval.segmentation.tokens import MaskedTokens, read_tokens
from caev2.eval.segmentation.training import SegmentationSettings, count_classes, judge_head, train_head
from caev2.eval.shares import BY_ITSELF, decoding_workers
from caev2.pretrain.together.ranks import Company
from caev2.progress import Progress, Silent
from caev2.recipe import fingerprint
from caev2.store.pixels.decode import Orientation
from caev2.terminal import print_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmented:
    """What one subject's patch tokens are worth; a line of the table."""

    role: Role
    name: str
    not_available: str | None = None
    """Why it was not judged; then nothing below is filled."""
    sha256: str | None = None
    """Identity of a teacher's weights."""
    score: SegmentationScore | None = None
    blocks: tuple[int, ...] = ()
    """After which blocks tokens were read; none: after the final norm."""
    resize_px: int | None = None
    crop_px: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationResult:
    """What subjects are worth on one set of images and masks."""

    subjects: tuple[Segmented, ...]
    classes: int
    """Numbers of the masks, those that are ignored left out; with `ignore` 0 the first class is number 1."""
    ignore: int
    settings: SegmentationSettings
    train_images: int
    val_images: int
    digests: dict[str, str]
    """Of the names of images and masks."""
    orientation: str
    seed: int
    run: RunFacts | None = None
    """Which weights the student is."""
    protocol: str = field(
        default="frozen tokens of the central crop, not augmented; mIoU over all pixels of all crops, no sliding window"
    )

    def mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    def question(self) -> str:
        """One word that is equal for results that answer the same question."""
        content = self.mapping()
        content["subjects"] = [
            [one.role, one.name, one.sha256, one.resize_px, one.crop_px, list(one.blocks)] for one in self.subjects
        ]
        return fingerprint(content)


def segment(
    entrants: Sequence[Entrant],
    images: Path,
    *,
    settings: SegmentationSettings | None = None,
    ignore: Ignore = 255,
    resize_px: int | None = None,
    orientation: Orientation = "exif",
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
    run: RunFacts | None = None,
    cache: Path | None = None,
    company: Company = BY_ITSELF,
) -> SegmentationResult:
    """Train a head on the frozen patch tokens of each subject and measure its masks.

    Several ranks share the images; the first trains the heads, and all of them return the same.

    Args:
        entrants: Who is judged.
        images: A folder in the layout of ADE20K; see `masks`.
        settings: Of the head.
        ignore: The number of a mask that counts for nobody.
        resize_px: Short side before the centre crop; none: the crop's own side.
        orientation: Whether the EXIF orientation of images is applied.
        seed: Of heads, batches, and the interval.
        device: Where to compute.
        progress: Who is told.
        run: Which weights the student is; becomes part of the result.
        cache: Folder below which tokens are kept for another time; none: they are not.
        company: Who shares the work.

    Raises:
        SourceError: Images and masks are no pairs, or cannot be used.
        Caev2Error: Somebody cannot be opened, and may not be missing.
    """
    settings, progress = settings or SegmentationSettings(), progress or Silent()
    if any(entrant.role == "pixels" for entrant in entrants):
        raise ConfigError("Pixels have no patch tokens. Leave out --pixels.")
    train, val = (company.together(partial(open_masked_images, images, part)) for part in ("train", "val"))
    company.agree(f"{train.images.digest()} and {val.images.digest()}", "images with the digests")
    if len(train) < 2:
        raise SourceError(f"A head cannot be trained on {len(train)} image. Give two or more in images/training.")
    ordered = in_order_of_hope(entrants)
    reasons = reasons_missing(ordered, device, company)
    lines, classes = [], 0
    for entrant, reason in zip(ordered, reasons, strict=True):
        if reason is not None:
            lines.append(Segmented(role=entrant.role, name=entrant.name, not_available=reason))
            continue
        reading = Reading(
            resize_px=resize_px or 0,
            device=device,
            orientation=orientation,
            token_limit_bytes=settings.token_limit_bytes,
            workers=decoding_workers(device, company),
            cache=cache,
        )
        line, found = _judge(entrant, train, val, reading, settings, ignore, seed, progress, company)
        lines.append(line)
        classes = max(classes, found)
    return SegmentationResult(
        subjects=tuple(lines),
        classes=classes,
        ignore=ignore,
        settings=settings,
        train_images=len(train),
        val_images=len(val),
        digests={
            f"{part} {kind}": source.digest()
            for part, pair in (("train", train), ("val", val))
            for kind, source in (("images", pair.images), ("masks", pair.masks))
        },
        orientation=orientation,
        seed=seed,
        run=run,
    )


def _judge(
    entrant: Entrant,
    train: MaskedImages,
    val: MaskedImages,
    reading: Reading,
    settings: SegmentationSettings,
    ignore: Ignore,
    seed: int,
    progress: Progress,
    company: Company,
) -> tuple[Segmented, int]:
    """What one subject is worth, and how many classes the masks have."""
    subject = company.together(partial(entrant.open, reading.device))
    company.agree(subject.identity, f"for {entrant.name} the weights")
    reading = dataclasses.replace(reading, resize_px=reading.resize_px or subject.size_px)
    blocks = company.together(lambda: blocks_read(settings.head, trunk_of(subject).depth))
    tokens = [
        read_tokens(subject, source, reading, blocks=blocks, ignore=ignore, progress=progress, company=company)
        for source in (train, val)
    ]
    found = company.first(partial(_train_and_score, tokens, reading.device, settings, seed, progress))
    line = Segmented(
        role=entrant.role,
        name=entrant.name,
        sha256=subject.sha256,
        score=found[0],
        blocks=blocks,
        resize_px=reading.resize_px,
        crop_px=subject.size_px,
    )
    return line, found[1]


def _train_and_score(
    tokens: Sequence[MaskedTokens | None],
    device: str,
    settings: SegmentationSettings,
    seed: int,
    progress: Progress,
) -> tuple[SegmentationScore, int]:
    """The score of a head trained on the train tokens, and how many classes the masks have."""
    train, val = (each for each in tokens if each is not None)
    classes = count_classes(train, val)
    head = train_head(train, classes=classes, settings=settings, seed=seed, device=device, progress=progress)
    confusions = judge_head(head, val, classes=classes, batch_size=settings.batch_size, device=device)
    return score_masks(confusions, seed=seed), classes


def print_segmentation(result: SegmentationResult) -> None:
    """Print the table: a line for each subject."""
    rows = []
    for one in result.subjects:
        if one.score is None:
            rows.append((f"{one.name}: not available ({one.not_available})", "", "", ""))
        else:
            shares = (f"{100 * share:.1f}" for share in (one.score.pixel_accuracy, one.score.class_accuracy))
            rows.append((one.name, str(one.score.mean_iou), *shares))
    title = f"{result.settings.head} head, {result.val_images:,} images, {result.classes} classes, in %"
    print_table(title, ("tokens", "mIoU (95 % interval)", "pixels right", "mean of classes"), rows)
