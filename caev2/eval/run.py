"""Stage three: from frozen features to a number one can trust."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from caev2.errors import ConfigError
from caev2.eval.checks import check_several_classes, effective_rank
from caev2.eval.entrants import Entrant, RunFacts, in_order_of_hope, reasons_missing
from caev2.eval.features import Reading, Subject, extract_features
from caev2.eval.parts import check_seekable, open_splits
from caev2.eval.probes.protocols import (
    OF_TOKENS,
    PROBES,
    TOGETHER,
    Answers,
    ProbeSettings,
    Task,
    refuse_hopeless,
    settings_of,
)
from caev2.eval.result import Judged, ProbeResult
from caev2.eval.score import score_answers
from caev2.eval.shares import BY_ITSELF, decoding_workers
from caev2.pretrain.together.ranks import Company
from caev2.progress import Progress, Silent
from caev2.store.images import ImageSource, Place
from caev2.store.pixels.decode import Orientation

RESIZE_RATIO = 256 / 224
"""Short side over crop, as in the published evaluation."""

KINDS = ("knn", "linear")
"""What is asked where nothing else is said; `PROBES` has more."""


def probe(
    entrants: Sequence[Entrant],
    images: Place,
    *,
    kinds: Sequence[str] = KINDS,
    resize_px: int | None = None,
    orientation: Orientation = "exif",
    seed: int = 0,
    settings: ProbeSettings | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    run: RunFacts | None = None,
    cache: Path | None = None,
    company: Company = BY_ITSELF,
) -> ProbeResult:
    """Judge frozen features, by k nearest neighbours and by a linear head or as asked, everybody on the same images.

    Whatever can be refused is refused before the first image is read: the classes, then everybody's weights. One
    subject at a time is in memory. Who has no tokens, as pixels, gets no number of a probe that looks at tokens.
    Several ranks share the images; the first asks the probes, and all return the same.

    Args:
        entrants: Who is judged.
        images: Labelled images in two parts: a folder with `train/CLASS/` and `val/CLASS/`, or tars or tables with
            these words in their names.
        kinds: Which probes, out of `PROBES`.
        resize_px: Short side before the centre crop; none: 8/7 of the crop.
        orientation: Whether the EXIF orientation is applied.
        seed: Of the held-out tenth, the heads, and the draws of few-shot probes.
        settings: What may be chosen about the probes.
        device: Where to compute.
        progress: Who is told.
        run: Which weights the student is; becomes part of the result.
        cache: Folder below which features are kept for another time; none: they are not.
        company: Who shares the work.

    Raises:
        SourceError: No such split, no classes, other classes in `val` than in `train`, or an undecodable image.
        Caev2Error: Somebody cannot be opened, and may not be missing.
    """
    settings = settings or ProbeSettings()
    train, val = company.together(partial(_open_hopeful, images, kinds, settings))
    company.agree(f"{train.digest()} and {val.digest()}", "images with the digests")
    ordered = in_order_of_hope(entrants)
    reasons = reasons_missing(ordered, device, company)
    judged = [
        Judged(role=entrant.role, name=entrant.name, not_available=reason)
        if reason is not None
        else judge(
            entrant,
            train,
            val,
            kinds=kinds,
            resize_px=resize_px,
            orientation=orientation,
            seed=seed,
            settings=settings,
            device=device,
            workers=decoding_workers(device, company),
            progress=progress or Silent(),
            cache=cache,
            company=company,
        )
        for entrant, reason in zip(ordered, reasons, strict=True)
    ]
    return ProbeResult(
        subjects=tuple(judged),
        classes=train.classes,
        train_images=len(train),
        val_images=len(val),
        train_digest=train.digest(),
        val_digest=val.digest(),
        orientation=orientation,
        seed=seed,
        settings=settings_of(tuple(kinds), settings),
        run=run,
    )


@contextlib.contextmanager
def told_when_memory_is_short() -> Iterator[None]:
    """Say what to do about a device that is too small to judge with.

    Raises:
        ConfigError: It is.
    """
    try:
        yield
    except torch.OutOfMemoryError as problem:
        raise ConfigError(
            f"The device has too little memory to judge with ({str(problem).splitlines()[0]}). End what else runs on "
            "it, or judge with another one: --device. What is finished is kept."
        ) from None


@told_when_memory_is_short()
def judge(
    entrant: Entrant,
    train: ImageSource,
    val: ImageSource,
    *,
    kinds: Sequence[str],
    resize_px: int | None,
    orientation: Orientation,
    seed: int,
    device: str,
    workers: int = 1,
    progress: Progress,
    settings: ProbeSettings | None = None,
    cache: Path | None = None,
    company: Company = BY_ITSELF,
) -> Judged:
    """What one subject's features are worth; see `probe`."""
    subject = company.together(partial(entrant.open, device))
    company.agree(subject.identity, f"for {entrant.name} the weights")
    possible = [kind for kind in kinds if subject.trunk is not None or kind not in OF_TOKENS]
    with_tokens = any(kind in OF_TOKENS for kind in possible or kinds)  # nothing possible: refused with the tokens
    resize_px = resize_px or round(subject.size_px * RESIZE_RATIO)
    settings = settings or ProbeSettings()
    reading = Reading(
        resize_px=resize_px,
        device=device,
        orientation=orientation,
        workers=workers,
        with_tokens=with_tokens,
        token_limit_bytes=settings.attentive.token_limit_bytes,
        cache=cache,
    )
    train_features, val_features = (
        extract_features(subject, source, reading, progress, company) for source in (train, val)
    )
    task = Task(
        subject=subject,
        images=(train, val),
        reading=reading,
        train=train_features,
        val=val_features,
        classes=len(train.classes),
        seed=seed,
        settings=settings,
        progress=progress,
        company=company,
    )
    shared = {kind: PROBES[kind](task) for kind in possible if kind in TOGETHER}
    return company.first(partial(_score, entrant, subject, task, possible, shared))


def _score(
    entrant: Entrant, subject: Subject, task: Task, kinds: Sequence[str], shared: dict[str, dict[str, Answers]]
) -> Judged:
    """The line of one subject: what it says to the probes, those counted that were asked already."""
    asked = {kind: shared[kind] if kind in shared else PROBES[kind](task) for kind in kinds}
    answers = {name: found for kind in kinds for name, found in asked[kind].items()}
    scores = {
        name: score_answers(found.predicted, task.val.labels, classes=task.classes, seed=task.seed)
        for name, found in answers.items()
    }
    return Judged(
        role=entrant.role,
        name=entrant.name,
        sha256=subject.sha256,
        protocol={name: found.protocol for name, found in answers.items()},
        effective_rank={name: round(effective_rank(found), 2) for name, found in task.train.pooled.items()},
        resize_px=task.reading.resize_px,
        crop_px=subject.size_px,
        accuracy={name: score.accuracy for name, score in scores.items()},
        bootstrap={name: score.bootstrap for name, score in scores.items() if score.bootstrap is not None},
        draws={name: score.draws for name, score in scores.items() if score.draws},
        per_class={name: score.per_class for name, score in scores.items()},
    )


def _open_hopeful(images: Place, kinds: Sequence[str], settings: ProbeSettings) -> tuple[ImageSource, ImageSource]:
    """Both parts; labels that no features could help are refused while nothing has been spent."""
    train, val = open_splits(images)
    labels = torch.tensor(train.labels)
    check_several_classes(labels, "train")
    for kind in kinds:
        refuse_hopeless(labels, kind, settings)
        if kind in TOGETHER:
            check_seekable(train)
    return train, val
