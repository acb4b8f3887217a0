"""Stage two: train the student against stored targets, without loading a teacher."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from caev2.errors import OutputError, TrainingDiverged
from caev2.pretrain.batches import Batch, StepBatches, load_batches
from caev2.pretrain.checkpoint import Position, save_checkpoint
from caev2.pretrain.decode import TargetDecoder
from caev2.pretrain.identity import claim_run, identify, refuse_other_run
from caev2.pretrain.kept_step import keep_step
from caev2.pretrain.lock import hold_run
from caev2.pretrain.log import Log
from caev2.pretrain.meter import Meter
from caev2.pretrain.model import CAEv2
from caev2.pretrain.order import RowOrder
from caev2.pretrain.parameters import adamw
from caev2.pretrain.plan import fit_recipe, learning_rates, row_order
from caev2.pretrain.recipes import PretrainRecipe
from caev2.pretrain.resume import load_newest, refuse_existing, remove_scratch
from caev2.pretrain.schedule import CosineSchedule
from caev2.pretrain.signals import Interrupted, catching_signals
from caev2.pretrain.start import starting_student
from caev2.pretrain.step import StepFigures, tensor_cores, train_step
from caev2.pretrain.telling import MAX_SKIPPED, describe_step, figures_of, tell_step
from caev2.progress import Progress, Silent
from caev2.store.disk import writing
from caev2.store.images import ImageSource, Place, open_images
from caev2.store.pixels.replay import open_crops
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
) -> PretrainResult:
    """Train a student, or go on with a run that was interrupted.

    On a CPU the weights at the end do not depend on interruptions, to the last bit.

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

    Raises:
        StoreMismatch: The recipe does not fit the store.
        SourceError: The store keeps no crops, and no images are given, or some are missing.
        CheckpointError: Another run lies at the path, or its checkpoint cannot be used, or that of `init_from`.
        PixelDrift: The images are not what the teacher saw.
        TrainingDiverged: Several steps in a row were not finite.
        OutputError: The run cannot be written, or another process trains it.
        Interrupted: A signal asked the run to leave; a checkpoint was saved.
    """
    progress, run = progress or Silent(), Path(run)
    if resume == "never":
        refuse_existing(run)
    store = store if isinstance(store, Store) else Store(store)
    recipe = fit_recipe(recipe, store)
    precision = recipe.precision or ("bf16" if device.startswith("cuda") else "fp32")
    order = row_order(recipe, store)
    if store.is_remote and recipe.order == "full":
        progress.warn(
            f"{store.path} lies at a URL and is read in full order, which wants all its files at once. Unless the "
            "cache holds a whole view, files are fetched over and over: --set order=window reads one after another."
        )
    schedule = learning_rates(recipe, order)
    model, start = starting_student(recipe.model, recipe.seed, None if init_from is None else Path(init_from))
    identity = identify(recipe, store, precision, start)
    refuse_other_run(run, identity)
    batches = _batches(recipe, store, images, order)
    # nothing was written so far: whatever is refused leaves no folder behind
    with hold_run(run, progress), tensor_cores(device):
        remove_scratch(run)
        with writing(run):
            claim_run(run, identity)
        decoder = TargetDecoder(store.decode_plan(recipe.target), tokens=recipe.model.patches + 1).to(device)
        training = _restore(run, model.to(device), recipe, identity.fingerprint(), progress)
        return _train(training, recipe, batches, decoder, schedule, precision, device, progress, stop_after)


def _batches(recipe: PretrainRecipe, store: Store, images: ImageSource | Place | None, order: RowOrder) -> StepBatches:
    keeps_crops = store.manifest.spec.crops is not None
    source = None if keeps_crops or images is None else images
    return StepBatches(
        store=store,
        crops=open_crops(store, source if source is None or isinstance(source, ImageSource) else open_images(source)),
        order=order,
        model=recipe.model,
        mask=recipe.mask,
        target=recipe.target,
        seed=recipe.seed,
    )


@dataclass(slots=True)
class _Training:
    """What training changes, and where it is kept."""

    run: Path
    fingerprint: str
    model: CAEv2
    optimizer: torch.optim.Optimizer
    position: Position
    keep_checkpoints: int
    saved: Position | None

    def save(self) -> None:
        """Write a checkpoint, unless there is one of this very step."""
        if self.saved == self.position:
            return
        save_checkpoint(
            self.run / "checkpoints",
            self.model,
            self.optimizer,
            step=self.position.step,
            skipped=self.position.skipped,
            fingerprint=self.fingerprint,
            keep_last=self.keep_checkpoints,
        )
        self.saved = self.position


def _restore(run: Path, model: CAEv2, recipe: PretrainRecipe, fingerprint: str, progress: Progress) -> _Training:
    """The given weights, or in their place those of the newest sound checkpoint."""
    settings, fused = recipe.optimizer, next(model.parameters()).device.type == "cuda"
    optimizer = adamw(model, weight_decay=settings.weight_decay, betas=settings.betas, fused=fused)
    found = load_newest(run / "checkpoints", model, optimizer, fingerprint=fingerprint, progress=progress)
    return _Training(run, fingerprint, model, optimizer, found or Position(0, 0), recipe.keep_checkpoints, found)


def _train(
    training: _Training,
    recipe: PretrainRecipe,
    batches: StepBatches,
    decoder: TargetDecoder,
    schedule: CosineSchedule,
    precision: str,
    device: str,
    progress: Progress,
    stop_after: int | None,
) -> PretrainResult:
    run, order = training.run, batches.order
    every = recipe.checkpoint_steps or recipe.checkpoint_epochs * order.steps_per_epoch
    first = training.position.step
    last = order.total_steps if stop_after is None else min(order.total_steps, stop_after)
    steps_skipped, loss = 0, None

    log = Log(run, from_step=first)
    progress.start("pretrain", order.total_steps, first)
    meter = Meter(recipe.batch_size)
    loaded = load_batches(batches, range(first, last), recipe.workers, pin_memory=device.startswith("cuda"))
    with contextlib.closing(log), catching_signals() as leaving:
        if first == last == 0:
            training.save()
        for batch in meter.waiting(leaving.until_asked(loaded)):
            # the model stays in training mode: nothing in it but the given keep bits depends on the mode
            lr = schedule.lr_at(batch.step)
            figures = train_step(
                training.model,
                training.optimizer,
                batch.to(device),
                decoder,
                lr=lr,
                clip_norm=recipe.optimizer.clip_norm,
                precision=precision,
            )
            skipped = 0 if figures.applied else training.position.skipped + 1
            training.position = Position(batch.step + 1, skipped)
            steps_skipped += not figures.applied
            if batch.step % recipe.log_steps == 0 or skipped or training.position.step == last:
                record = describe_step(batch, figures, lr) | meter.read()
                loss = loss if skipped else record["loss"]
                log.write(record)
                tell_step(progress, batch, record, skipped)
            progress.advance(1)
            if skipped == MAX_SKIPPED:
                raise _diverged(training, batch.to(device), decoder, figures, precision, device)
            if training.position.step % every == 0 or training.position.step == last:
                log.flush()
                training.save()
        if leaving.number is not None and training.position.step < order.total_steps:
            log.flush()
            training.save()
            raise Interrupted(leaving.number, training.position.step)
    progress.finish()
    return PretrainResult(
        run=run,
        steps=training.position.step,
        steps_computed=training.position.step - first,
        steps_skipped=steps_skipped,
        loss=loss,
    )


def _diverged(
    training: _Training, batch: Batch, decoder: TargetDecoder, figures: StepFigures, precision: str, device: str
) -> TrainingDiverged:
    """Keep the step, and say where: the weights are those before it, since it was skipped."""
    path = training.run / f"diverged-step-{batch.step}.safetensors"
    came, latents = figures_of(figures), decoder(batch.targets)
    try:
        keep_step(path, training.model, batch, latents, precision=precision, device=device, figures=came)
        kept = f"`caev2 pretrain --replay {path}` shows the last one again"
    except OutputError as problem:
        kept = f"The last one is not kept for a replay. {problem}"
    return TrainingDiverged(
        f"{training.run}: loss or gradients were not finite in {MAX_SKIPPED} steps in a row, up to step {batch.step}. "
        f"{kept.rstrip('.')}. The last checkpoint is untouched. Lower optimizer.lr, or train in fp32 with --set "
        "precision=fp32."
    )
