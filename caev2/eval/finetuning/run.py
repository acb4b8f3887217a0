"""Fine-tuning: from a start and labelled images to a number, in a folder that can be gone on with."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from caev2.errors import ConfigError, SourceError
from caev2.eval.checks import check_several_classes
from caev2.eval.entrants import RunFacts
from caev2.eval.features import check_labelled
from caev2.eval.finetuning.augmentation import Mixer, check_groups, train_transform
from caev2.eval.finetuning.batches import Augmenting, TunedBatches, order_images
from caev2.eval.finetuning.identity import TuneIdentity, claim, refuse_other
from caev2.eval.finetuning.judging import Judging
from caev2.eval.finetuning.layer_decay import tuning_groups
from caev2.eval.finetuning.model import Backbone, FineTuner
from caev2.eval.finetuning.outcome import outcome_of
from caev2.eval.finetuning.recipes import FinetuneRecipe
from caev2.eval.finetuning.starts import Start
from caev2.eval.finetuning.training import TunedState, TuneLoop, TuneStep
from caev2.eval.result import Judged, ProbeResult, save_result
from caev2.eval.run import RESIZE_RATIO, check_same_classes, open_splits
from caev2.pretrain.checkpoint import Position
from caev2.pretrain.ema import Average
from caev2.pretrain.encoder import Encoder
from caev2.pretrain.loading import cores
from caev2.pretrain.lock import hold_run
from caev2.pretrain.log import Log
from caev2.pretrain.ranks import Company, Ranks, device_of, joined, ranks_of_environment, use_gpu
from caev2.pretrain.resume import load_newest, remove_scratch
from caev2.pretrain.run import NoLog
from caev2.pretrain.schedule import CosineSchedule
from caev2.pretrain.signals import Interrupted, catching_signals
from caev2.pretrain.step import tensor_cores
from caev2.pretrain.tensor_file import digest_tensors
from caev2.progress import Progress, Silent
from caev2.recipe import to_mapping
from caev2.store.disk import writing
from caev2.store.images import ImageSource, Place, open_images
from caev2.store.pixels.decode import Orientation

Resume = Literal["auto", "never"]


def finetune_and_score(
    start: Start,
    images: Place,
    out: Path,
    recipe: FinetuneRecipe,
    *,
    device: str = "cpu",
    orientation: Orientation = "exif",
    progress: Progress | None = None,
) -> Judged:
    """Fine-tune somebody on `train` of a data set and judge it on `val`: one line of a table, under `finetune`.

    Args:
        start: Whose weights.
        images: Labelled images in two parts, as `caev2.eval.run.probe` takes them.
        out: Folder of this fine-tuning; the same call goes on with what an earlier one left.
        recipe: How.
        device: Where to compute.
        orientation: Whether the EXIF orientation is applied.
        progress: Who is told.
    """
    train, val = open_splits(images)
    result = finetune(start, train, val, out, recipe, device=device, orientation=orientation, progress=progress)
    return result.subjects[0]


def open_parts(train: Place, val: Place | None) -> tuple[ImageSource, ImageSource]:
    """The labelled images of both parts.

    Args:
        train: Where those to train on are; or a data set that has parts.
        val: Where those to judge on are; none: they are the other part of `train`.

    Raises:
        SourceError: One is missing, they do not have the same classes, or an image has none.
    """
    if val is None:
        return open_splits(train)
    parts = open_images(train, "train"), open_images(val, "val")
    for source in parts:
        check_labelled(source)
    check_same_classes(train, parts[0].classes, parts[1].classes)
    return parts


def finetune(
    start: Start,
    train: ImageSource,
    val: ImageSource,
    out: Path | str,
    recipe: FinetuneRecipe,
    *,
    device: str = "cpu",
    resume: Resume = "auto",
    orientation: Orientation = "exif",
    progress: Progress | None = None,
    run: RunFacts | None = None,
) -> ProbeResult:
    """Train the whole encoder and a head on labels, judge it after every epoch, and report the last one.

    On a CPU the weights at the end do not depend on interruptions. Under `torchrun` each process trains on its share of
    every batch and judges its share of `val`.

    Args:
        start: Whose weights.
        train: Labelled images to train on.
        val: Labelled images to judge on, with the same classes.
        out: Folder for `finetune.json`, `log.jsonl`, `checkpoints/` and `result.json`.
        recipe: How.
        device: Where to compute.
        resume: `auto` goes on from the latest sound checkpoint, or begins; `never` refuses work that is there.
        orientation: Whether the EXIF orientation is applied.
        progress: Who is told.
        run: Which weights the student is; becomes part of the result.

    Raises:
        SourceError: Images cannot be used for this.
        ConfigError: The recipe does not fit the images or the ranks.
        CheckpointError: The weights are broken or say nothing, or other work lies in `out`.
        OutputError: `out` cannot be written, or another process works there.
        TrainingDiverged: The loss was not finite.
        Interrupted: A signal asked to leave; a checkpoint was saved.
    """
    ranks = ranks_of_environment()
    device = device_of(ranks, device)
    use_gpu(ranks, device)
    _refuse_hopeless(train, recipe, ranks)
    job = _prepare(start, train, val, Path(out), recipe, device, orientation, ranks)
    told = progress if progress is not None and ranks.is_first else Silent()
    with joined(ranks, device) as company, tensor_cores(device), _told_when_memory_is_short(recipe, ranks):
        company.first(lambda: refuse_other(job.out, job.identity, resume=resume == "auto"))
        company.first(lambda: job.judging.check_start(job.model.to(device), start.name))
        with _held(job, company, told):
            return _train(job, company, told, run)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """All that is known before a step is done."""

    start: Start
    out: Path
    recipe: FinetuneRecipe
    identity: TuneIdentity
    backbone: Backbone
    model: FineTuner
    batches: TunedBatches
    judging: Judging
    schedule: CosineSchedule
    train: ImageSource


def _refuse_hopeless(train: ImageSource, recipe: FinetuneRecipe, ranks: Ranks) -> None:
    """Refuse what no weights could help, before they are loaded."""
    check_several_classes(torch.tensor(train.labels), "train")
    check_groups(recipe.mix, recipe.batch_size, ranks.count)
    if (share := recipe.batch_size // ranks.count) % recipe.accumulate:
        raise ConfigError(
            f"The {share} images that a device takes of a batch are not cut into {recipe.accumulate} equal parts. "
            "Give --set accumulate to a divisor."
        )
    if not train.seekable:
        raise SourceError(
            f"The images in {train.root} lie in a compressed tar, which can be read from its beginning only, and they "
            "are wanted in another order. Decompress it."
        )


def _prepare(
    start: Start,
    train: ImageSource,
    val: ImageSource,
    out: Path,
    recipe: FinetuneRecipe,
    device: str,
    orientation: Orientation,
    ranks: Ranks,
) -> _Job:
    order = order_images(len(train), batch_size=recipe.batch_size, epochs=recipe.epochs, seed=recipe.seed)
    schedule = CosineSchedule(
        peak_lr=recipe.optimizer.lr,
        min_lr=recipe.optimizer.min_lr,
        warmup_steps=round(recipe.optimizer.warmup_epochs * order.steps_per_epoch),
        total_steps=order.total_steps,
    )
    backbone = start.open(recipe.model)
    model = FineTuner(backbone, len(train.classes), head_scale=recipe.model.head_scale, seed=recipe.seed)
    if recipe.recompute_activations and isinstance(model.encoder, Encoder):
        model.encoder.recompute = True
    size_px, precision = backbone.image_px, recipe.precision or ("bf16" if device.startswith("cuda") else "fp32")
    train_transform(recipe.augmentation, size_px, backbone.mean, backbone.std)  # refuses names that timm does not know
    facts: dict[str, Any] = {"mean": backbone.mean, "std": backbone.std, "size_px": size_px, "orientation": orientation}
    return _Job(
        start=start,
        out=out,
        recipe=recipe,
        identity=TuneIdentity(
            start={"role": start.role, "name": start.name, "digest": digest_tensors(model.state_dict(), {})},
            recipe={**to_mapping(recipe, result_only=True), "precision": precision},
            images={"train": train.digest(), "val": val.digest(), "orientation": orientation},
        ),
        backbone=backbone,
        model=model,
        batches=TunedBatches(
            augmenting=Augmenting(source=train, settings=recipe.augmentation, seed=recipe.seed, **facts),
            order=order,
            rates=backbone.rates,
            ranks=ranks,
        ),
        judging=Judging(
            source=val,
            resize_px=recipe.resize_px or round(size_px * RESIZE_RATIO),
            device=device,
            bf16=precision == "bf16",
            workers=_count_workers(recipe.workers, device, ranks),
            ranks=ranks,
            **facts,
        ),
        schedule=schedule,
        train=train,
    )


def _count_workers(wanted: int | None, device: str, ranks: Ranks) -> int:
    """On a CPU a worker takes from the step what it gives to it."""
    if wanted is not None:
        return wanted
    return max(1, cores() // ranks.per_machine) if device.startswith("cuda") else 0


@contextlib.contextmanager
def _held(job: _Job, company: Company, progress: Progress) -> Iterator[None]:
    """The folder, which the first rank keeps other processes from."""
    with contextlib.ExitStack() as stack:

        def begin() -> None:
            stack.enter_context(hold_run(job.out, progress))
            remove_scratch(job.out)
            with writing(job.out):
                claim(job.out, job.identity)

        company.first(begin)
        yield


def _restore(job: _Job, company: Company, progress: Progress) -> TunedState:
    """The weights it starts from, or in their place those of the newest sound checkpoint."""
    recipe, model, fingerprint = job.recipe, job.model, job.identity.fingerprint()
    groups = tuning_groups(
        model,
        depth=job.backbone.depth,
        layer_decay=recipe.optimizer.layer_decay,
        weight_decay=recipe.optimizer.weight_decay,
        decay_tables=recipe.optimizer.decay_position_bias,
    )
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=recipe.optimizer.betas, fused=True)
    average = None if recipe.ema_decay is None else Average(model, recipe.ema_decay)

    def load(who: Progress) -> Position | None:
        return load_newest(
            job.out / "checkpoints", model, optimizer, fingerprint=fingerprint, progress=who, average=average
        )

    found = company.first(lambda: load(progress))  # which sets aside what is damaged
    if not company.ranks.is_first and load(Silent()) != found:
        raise ConfigError(
            f"Rank {company.ranks.index} does not see the checkpoints of {job.out} that the first rank sees. Give a "
            "folder that all machines share."
        )
    step = 0 if found is None else found.step
    return TunedState(job.out, fingerprint, model, optimizer, average, step, recipe.keep_checkpoints)


def _train(job: _Job, company: Company, progress: Progress, run: RunFacts | None) -> ProbeResult:
    recipe, order, device = job.recipe, job.batches.order, job.judging.device
    state = _restore(job, company, progress)
    mixer = Mixer(recipe.mix, classes=len(job.train.classes), batch_size=recipe.batch_size, seed=recipe.seed)
    step = TuneStep(
        job.model,
        state.optimizer,
        mixer,
        bf16=job.judging.bf16,
        clip_norm=recipe.optimizer.clip_norm,
        accumulate=recipe.accumulate,
        company=company,
    )
    with _log(job.out, state.step, company) as log, catching_signals() as leaving:
        loop = TuneLoop(
            state=state,
            step=step,
            schedule=job.schedule,
            order=order,
            judging=job.judging,
            company=company,
            log=log,
            progress=progress,
        )
        progress.start(f"finetune {job.start.name}", order.total_steps, state.step)
        batches = job.batches.load(range(state.step, order.total_steps), workers=job.judging.workers, device=device)
        asked = loop.run(batches, leaving, company.agreement())
        company.wait()  # until the first has saved: whoever leaves early has the others ended
    if asked and state.step < order.total_steps:
        raise Interrupted(asked, state.step)
    progress.finish()
    if not loop.answers:  # all steps were done before
        loop.judge()
    return company.first(partial(_report, job, loop, run))


def _report(job: _Job, loop: TuneLoop, run: RunFacts | None) -> ProbeResult:
    result = outcome_of(
        loop,
        start=job.start,
        backbone=job.backbone,
        train=job.train,
        identity=job.identity,
        recipe=job.recipe,
        run=run,
    )
    save_result(result, job.out)
    return result


@contextlib.contextmanager
def _log(out: Path, first: int, company: Company) -> Iterator[Log | NoLog]:
    opened: list[Log] = []
    company.first(lambda: opened.append(Log(out, first)))
    if not opened:
        yield NoLog()
        return
    with contextlib.closing(opened[0]) as log:
        yield log


@contextlib.contextmanager
def _told_when_memory_is_short(recipe: FinetuneRecipe, ranks: Ranks) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as problem:
        images = recipe.batch_size // (recipe.accumulate * ranks.count)
        raise ConfigError(
            f"The device has too little memory for {images} images at once ({str(problem).splitlines()[0]}). "
            f"--set accumulate={2 * recipe.accumulate} halves them and --set recompute_activations=true keeps less of "
            "each, neither changes what is learnt; or use more GPUs. The same command goes on from the last checkpoint."
        ) from None
