"""Fine-tuning: from a start and labelled images to a number, in a folder that can be gone on with."""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from caev2.errors import ConfigError
from caev2.eval.entrants import RunFacts
from caev2.eval.finetuning.augmentation import Mixer
from caev2.eval.finetuning.identity import claim, refuse_other
from caev2.eval.finetuning.job import TuneJob, prepare
from caev2.eval.finetuning.layer_decay import tuning_groups
from caev2.eval.finetuning.outcome import outcome_of
from caev2.eval.finetuning.recipes import FinetuneRecipe
from caev2.eval.finetuning.starts import Start
from caev2.eval.finetuning.training import TunedState, TuneLoop, TuneStep
from caev2.eval.parts import match_parts, open_splits
from caev2.eval.result import Judged, ProbeResult, save_result
from caev2.pretrain.learning.ema import Average
from caev2.pretrain.learning.step import tensor_cores
from caev2.pretrain.resume import load_newest, remove_scratch
from caev2.pretrain.run import NoLog
from caev2.pretrain.telling.log import Log
from caev2.pretrain.together.lock import hold_run
from caev2.pretrain.together.ranks import Company, Ranks, device_of, joined, ranks_of_environment, use_gpu
from caev2.pretrain.together.signals import Interrupted, catching_signals
from caev2.pretrain.weights.checkpoint import Position
from caev2.progress import Progress, Silent
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
    run: RunFacts | None = None,
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
        run: Which weights the student is; becomes part of the result.
    """
    train, val = open_splits(images)
    result = finetune(
        start, train, val, out, recipe, device=device, orientation=orientation, progress=progress, run=run
    )
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
    return match_parts(train, open_images(train, "train"), open_images(val, "val"))


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
    job = prepare(start, train, val, Path(out), recipe, device=device, orientation=orientation, ranks=ranks)
    told = progress if progress is not None and ranks.is_first else Silent()
    with joined(ranks, device) as company, tensor_cores(device), _told_when_memory_is_short(recipe, ranks):
        company.agree(job.identity.fingerprint(), "the fine-tuning")
        company.first(lambda: refuse_other(job.out, job.identity, resume=resume == "auto"))
        company.first(lambda: job.judging.check_start(job.model, start.name))
        with _held(job, company, told):
            return _train(job, company, told, run)


@contextlib.contextmanager
def _held(job: TuneJob, company: Company, progress: Progress) -> Iterator[None]:
    """The folder, which the first rank keeps other processes from."""
    with contextlib.ExitStack() as stack:

        def begin() -> None:
            stack.enter_context(hold_run(job.out, progress))
            remove_scratch(job.out)
            with writing(job.out):
                claim(job.out, job.identity, job.backbone.sizes)

        company.first(begin)
        yield


def _restore(job: TuneJob, company: Company, progress: Progress) -> TunedState:
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


def _train(job: TuneJob, company: Company, progress: Progress, run: RunFacts | None) -> ProbeResult:
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


def _report(job: TuneJob, loop: TuneLoop, run: RunFacts | None) -> ProbeResult:
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
