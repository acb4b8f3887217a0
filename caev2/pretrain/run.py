"""Stage two: train the student against stored targets, without loading a teacher."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from caev2.errors import ConfigError
from caev2.pretrain.foresight.cost import count_multiply_adds, peak_flops
from caev2.pretrain.identity import RunIdentity, claim_run, refuse_other_run
from caev2.pretrain.learning.compiling import compiles
from caev2.pretrain.learning.ema import Average
from caev2.pretrain.learning.lesson import Lesson, MakeLesson, store_lesson
from caev2.pretrain.learning.step import Objective, TrainStep, tensor_cores
from caev2.pretrain.plan import learning_rates
from caev2.pretrain.recipes import PretrainRecipe
from caev2.pretrain.resume import load_newest, refuse_existing, remove_scratch
from caev2.pretrain.start import starting_student
from caev2.pretrain.student.model import CAEv2
from caev2.pretrain.student.parameters import adamw
from caev2.pretrain.supply.loading import load_adaptively
from caev2.pretrain.telling.log import was_judged
from caev2.pretrain.telling.loggers import Logger, open_loggers, refuse_missing_wandb
from caev2.pretrain.telling.meter import Meter
from caev2.pretrain.together.lock import hold_run
from caev2.pretrain.together.ranks import Company, device_of, joined, ranks_of_environment, use_gpu
from caev2.pretrain.together.signals import Interrupted, catching_signals
from caev2.pretrain.training import KeepDiverged, Loop, Rhythm, Trained
from caev2.pretrain.weights.checkpoint import Position
from caev2.progress import Progress, Silent
from caev2.recipe import to_mapping
from caev2.store.disk import writing
from caev2.store.images import ImageSource, Place
from caev2.store.reader import Store
from caev2.store.remote.paths import StorePath


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainResult:
    """What a run ended with."""

    run: Path
    steps: int
    steps_computed: int
    """Steps trained now; 0 if the run was already at its end."""
    steps_skipped: int
    """How many of those left the weights as they were, because loss or gradients were not finite."""
    loss: float | None
    """Of the last logged step that was not skipped."""


Judge = Callable[[CAEv2], Mapping[str, float]]


def pretrain(
    store: Store | StorePath | str,
    run: Path | str,
    recipe: PretrainRecipe,
    *,
    images: ImageSource | Place | None = None,
    device: str = "cpu",
    resume: Literal["auto", "never"] = "auto",
    init_from: Path | str | None = None,
    progress: Progress | None = None,
    stop_after: int | None = None,
    judge: Judge | None = None,
    wandb: str | None = None,
) -> PretrainResult:
    """Train a student, or go on with a run that was interrupted.

    On a CPU the weights at the end do not depend on interruptions, to the last bit. Under `torchrun` each process
    trains on its share of every batch; store and run have to be where all of them can read.

    Args:
        store: Where the targets are.
        run: Folder of the run: `run.json`, `log.jsonl`, `checkpoints/`.
        recipe: Sizes, masks, schedule.
        images: What the store was extracted from: a source, or a folder; not used if the store keeps its crops.
        device: Where to train, as torch spells it.
        resume: `auto` goes on from the latest sound checkpoint, or begins; `never` refuses a run that is there.
        init_from: A run, or an official file, whose weights a new run starts from; none: fresh weights.
        progress: Who is told.
        stop_after: Save a checkpoint and leave after this many steps of the run.
        judge: What is asked of the student every `knn_epochs` epochs, and at the end, and of the averaged weights if
            there are any; its figures go to the log.
        wandb: Project at Weights & Biases that figures are sent to as well; none: they stay here.

    Raises:
        StoreMismatch: The recipe does not fit the store.
        ConfigError: The recipe does not fit the ranks, or Weights & Biases cannot be used.
        SourceError: The store keeps no crops, and no images are given, or some are missing.
        CheckpointError: Another run lies at the path, or its checkpoint cannot be used, or that of `init_from`.
        PixelDrift: The images are not what the teacher saw.
        TrainingDiverged: Several steps in a row were not finite.
        OutputError: The run cannot be written, or another process trains it.
        RankLost: Another rank died.
        Interrupted: A signal asked the run to leave; a checkpoint was saved.
    """
    store = store if isinstance(store, Store) else Store(store)
    return teach(
        partial(store_lesson, store, recipe, images=images),
        run,
        device=device,
        resume=resume,
        init_from=init_from,
        progress=progress,
        stop_after=stop_after,
        judge=judge,
        wandb=wandb,
    )


def teach(
    make: MakeLesson,
    run: Path | str,
    *,
    device: str = "cpu",
    resume: Literal["auto", "never"] = "auto",
    init_from: Path | str | None = None,
    progress: Progress | None = None,
    stop_after: int | None = None,
    judge: Judge | None = None,
    wandb: str | None = None,
) -> PretrainResult:
    """Train on whatever lesson each rank makes; see `pretrain`.

    Args:
        make: Makes the lesson of each rank.
        run: Folder of the run.
        device: Where to train.
        resume: Whether to go on with a run that is there.
        init_from: Whose weights a new run starts from.
        progress: Who is told.
        stop_after: Leave after this many steps of the run.
        judge: Asked every `knn_epochs` epochs.
        wandb: Project at Weights & Biases.
    """
    refuse_missing_wandb(wandb)
    progress, run, ranks = progress or Silent(), Path(run), ranks_of_environment()
    progress = progress if ranks.is_first else Silent()
    device = device_of(ranks, device)
    use_gpu(ranks, device)
    lesson = make(device=device, ranks=ranks, progress=progress)
    with joined(ranks, lesson.device) as company:
        return learn(
            lesson,
            run,
            company=company,
            resume=resume,
            init_from=None if init_from is None else Path(init_from),
            progress=progress,
            stop_after=stop_after,
            judge=judge,
            wandb=wandb,
        )


def learn(
    lesson: Lesson,
    run: Path,
    *,
    company: Company,
    resume: Literal["auto", "never"] = "auto",
    init_from: Path | None = None,
    progress: Progress,
    stop_after: int | None = None,
    judge: Judge | None = None,
    wandb: str | None = None,
) -> PretrainResult:
    """Train a student on a lesson; see `pretrain`."""
    if resume == "never":
        company.first(lambda: refuse_existing(run))
    recipe = lesson.recipe
    model, start = starting_student(recipe.model, recipe.seed, init_from)
    identity = lesson.identify(start)
    company.first(lambda: refuse_other_run(run, identity))
    # nothing was written so far: whatever is refused leaves no folder behind
    with _held(run, identity, company, progress), tensor_cores(lesson.device):
        trained = _restore(run, model.to(lesson.device), lesson, identity.fingerprint(), company, progress)
        return _train(trained, lesson, company, progress, stop_after, judge, wandb)


@contextlib.contextmanager
def _held(run: Path, identity: RunIdentity, company: Company, progress: Progress) -> Iterator[None]:
    """The run's folder, which the first rank keeps other processes from."""
    with contextlib.ExitStack() as stack:

        def claim() -> None:
            stack.enter_context(hold_run(run, progress))
            remove_scratch(run)
            with writing(run):
                claim_run(run, identity)

        company.first(claim)
        yield


def _restore(
    run: Path, model: CAEv2, lesson: Lesson, fingerprint: str, company: Company, progress: Progress
) -> Trained:
    """The given weights, or in their place those of the newest sound checkpoint."""
    recipe, folder = lesson.recipe, run / "checkpoints"
    if recipe.recompute_activations:
        model.recompute_activations()
    optimizer = adamw(model, weight_decay=recipe.optimizer.weight_decay, betas=recipe.optimizer.betas)
    average = None if recipe.ema_decay is None else Average(model, recipe.ema_decay)

    def load(who: Progress) -> Position | None:
        return load_newest(folder, model, optimizer, fingerprint=fingerprint, progress=who, average=average)

    found = company.first(lambda: load(progress))  # which sets aside what is damaged
    if not company.ranks.is_first and load(Silent()) != found:
        raise ConfigError(
            f"Rank {company.ranks.index} does not see the checkpoints of {run} that the first rank sees. Give a folder "
            "that all machines share."
        )
    position = found or Position(0, 0)
    return Trained(run, fingerprint, model, optimizer, average, position, recipe.keep_checkpoints, found)


def _train(
    trained: Trained,
    lesson: Lesson,
    company: Company,
    progress: Progress,
    stop_after: int | None,
    judge: Judge | None,
    wandb: str | None,
) -> PretrainResult:
    recipe, order, first = lesson.recipe, lesson.batches.order, trained.position.step
    total = order.total_steps
    rhythm = Rhythm(
        last=total if stop_after is None else min(total, stop_after),
        log=recipe.log_steps,
        checkpoint=recipe.checkpoint_steps or recipe.checkpoint_epochs * order.steps_per_epoch,
        judge=recipe.knn_epochs * order.steps_per_epoch,
    )
    with _log(trained.run, first, company, recipe, wandb) as log, catching_signals() as leaving:
        progress.start("pretrain", total, first)
        loop = _loop(trained, lesson, rhythm, company, log, progress, judge)
        if first == rhythm.last == 0 and company.ranks.is_first:
            trained.save()
        loaded = load_adaptively(
            lesson.batches,
            range(first, rhythm.last),
            recipe.workers,
            device=lesson.device,
            ranks_of_machine=company.ranks.per_machine,
        )
        with told_when_memory_is_short(recipe, company):
            asked = loop.run(loaded, leaving, company.agreement())
        company.wait()  # until the first has saved: whoever leaves early has the others ended
        if asked and trained.position.step < total:
            raise Interrupted(asked, trained.position.step)
    progress.finish()
    return PretrainResult(
        run=trained.run,
        steps=trained.position.step,
        steps_computed=trained.position.step - first,
        steps_skipped=loop.steps_skipped,
        loss=loop.loss,
    )


@contextlib.contextmanager
def told_when_memory_is_short(recipe: PretrainRecipe, company: Company) -> Iterator[None]:
    """Say what to do about a device that is too small for the batch.

    Raises:
        ConfigError: It is.
    """
    try:
        yield
    except torch.OutOfMemoryError as problem:
        images = recipe.batch_size // (recipe.accumulate * company.ranks.count)
        raise ConfigError(
            f"The device has too little memory for {images} images at once ({str(problem).splitlines()[0]}). "
            f"--set accumulate={2 * recipe.accumulate} halves them and --set recompute_activations=true keeps less of "
            "each, neither changes what is learnt; or use more GPUs. `--dry-run` tells what it takes. The same command "
            "goes on from the last checkpoint."
        ) from None


def _loop(
    trained: Trained,
    lesson: Lesson,
    rhythm: Rhythm,
    company: Company,
    log: "Logger | NoLog",
    progress: Progress,
    judge: Judge | None,
) -> Loop:
    recipe, ranks, device, first = lesson.recipe, company.ranks, lesson.device, trained.position.step
    objective = Objective(trained.model, recipe.loss, lesson.form, lesson.precision)
    peak = peak_flops(torch.cuda.get_device_name(device)) if device.startswith("cuda") else None
    step = TrainStep(
        objective,
        trained.optimizer,
        lesson.inputs,
        clip_norm=recipe.optimizer.clip_norm,
        accumulate=recipe.accumulate,
        compiled=compiles(recipe, device, progress),
        company=company,
        skipped=trained.position.skipped,
    )
    return Loop(
        trained=trained,
        step=step,
        schedule=learning_rates(recipe, lesson.batches.order),
        rhythm=rhythm,
        meter=Meter(
            recipe.batch_size,
            gmac=count_multiply_adds(recipe.model, recipe.mask.count).total / 1e9,
            peak_flops=None if peak is None else peak * ranks.count,
        ),
        device=device,
        ranks=ranks,
        log=log,
        progress=progress,
        epoch_of=lesson.batches.order.epoch_of,
        keep=KeepDiverged(
            trained.run, objective, lesson.inputs, lesson.batches.batch_of, device, ranks, recipe.accumulate
        ),
        judge=judge if ranks.is_first else None,
        is_judged=not first or not rhythm.is_judged(first) or was_judged(trained.run, first - 1),
    )


class NoLog:
    """The log of a rank that writes none."""

    def write(self, record: dict) -> None:
        """Write nothing."""

    def flush(self) -> None:
        """Nothing is waited for."""


@contextlib.contextmanager
def _log(
    run: Path, first: int, company: Company, recipe: PretrainRecipe, wandb: str | None
) -> Iterator[Logger | NoLog]:
    opened: list[Logger] = []
    # where the first rank cannot open it, the others must not wait for that one
    company.first(lambda: opened.append(open_loggers(run, first, wandb=wandb, about=to_mapping(recipe))))
    if not opened:
        yield NoLog()
        return
    with contextlib.closing(opened[0]) as log:
        yield log
