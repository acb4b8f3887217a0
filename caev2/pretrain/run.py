"""Stage two: train the student against stored targets, without loading a teacher."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch

from caev2.errors import CheckpointError, TrainingDiverged
from caev2.pretrain.batches import Batch, StepBatches, load_batches
from caev2.pretrain.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from caev2.pretrain.decode import TargetDecoder
from caev2.pretrain.identity import claim_run, identify, refuse_other_run
from caev2.pretrain.lock import hold_run
from caev2.pretrain.log import Log
from caev2.pretrain.meter import Meter
from caev2.pretrain.model import CAEv2
from caev2.pretrain.order import RowOrder
from caev2.pretrain.parameters import adamw
from caev2.pretrain.plan import fit_recipe, learning_rates, row_order
from caev2.pretrain.recipes import PretrainRecipe
from caev2.pretrain.schedule import CosineSchedule
from caev2.pretrain.signals import Interrupted, catching_signals
from caev2.pretrain.start import starting_student
from caev2.pretrain.step import StepFigures, tensor_cores, train_step
from caev2.progress import Progress, Silent
from caev2.store.disk import write_whole, writing
from caev2.store.images import ImageSource, Place, open_images
from caev2.store.pixels.replay import open_crops
from caev2.store.reader import Store
from caev2.store.remote.paths import StorePath

MAX_SKIPPED = 3
"""Steps in a row without a finite loss and gradient after which a run stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainResult:
    """What a run ended with."""

    run: Path
    steps: int
    steps_computed: int
    """Steps trained now; 0 if the run was already at its end."""
    loss: float | None
    """Of the last logged step."""


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
        resume: `auto` goes on from the latest checkpoint; `never` refuses a run that has one.
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
    progress = progress or Silent()
    store = store if isinstance(store, Store) else Store(store)
    run = Path(run)
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
        with writing(run):
            claim_run(run, identity)
        decoder = TargetDecoder(store.decode_plan(recipe.target), tokens=recipe.model.patches + 1).to(device)
        training = _restore(run, model.to(device), recipe, identity.fingerprint(), resume)
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
    step: int
    """Steps done."""
    keep_checkpoints: int

    def save(self) -> None:
        save_checkpoint(
            self.run / "checkpoints",
            self.model,
            self.optimizer,
            step=self.step,
            fingerprint=self.fingerprint,
            keep_last=self.keep_checkpoints,
        )


def _restore(run: Path, model: CAEv2, recipe: PretrainRecipe, fingerprint: str, resume: str) -> _Training:
    """The given weights, or in their place those of the latest checkpoint."""
    settings, fused = recipe.optimizer, next(model.parameters()).device.type == "cuda"
    optimizer = adamw(model, weight_decay=settings.weight_decay, betas=settings.betas, fused=fused)
    checkpoint = latest_checkpoint(run / "checkpoints")
    if checkpoint is not None and resume == "never":
        raise CheckpointError(
            f"{run} already has a checkpoint at step {checkpoint.step}. Go on with --resume auto, or give another path."
        )
    step = 0 if checkpoint is None else load_checkpoint(checkpoint.path, model, optimizer, fingerprint=fingerprint)
    return _Training(run, fingerprint, model, optimizer, step, recipe.keep_checkpoints)


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
    first = training.step
    last = order.total_steps if stop_after is None else min(order.total_steps, stop_after)
    skipped, loss = 0, None

    log = Log(run, from_step=first)
    progress.start("pretrain", order.total_steps, first)
    meter = Meter(recipe.batch_size)
    loaded = load_batches(batches, range(first, last), recipe.workers, pin_memory=device.startswith("cuda"))
    with contextlib.closing(log), catching_signals() as caught:
        if first == last == 0:
            training.save()
        for batch in meter.waiting(loaded):
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
            training.step = batch.step + 1
            skipped = 0 if figures.applied else skipped + 1
            if batch.step % recipe.log_steps == 0 or not figures.applied or training.step == last:
                record = _describe(batch, figures, lr) | meter.read()
                loss = record["loss"]
                log.write(record)
                _tell(progress, batch, record)
            progress.advance(1)
            if skipped == MAX_SKIPPED:
                raise _diverged(run, batch)
            if training.step % every == 0 or training.step == last or caught:
                training.save()
            if caught and training.step < order.total_steps:
                raise Interrupted(caught[0], training.step)
    progress.finish()
    return PretrainResult(run=run, steps=training.step, steps_computed=training.step - first, loss=loss)


def _describe(batch: Batch, figures: StepFigures, lr: float) -> dict[str, float | int | bool]:
    """A line of the log, in the words of the loss."""
    alignment = figures.alignment
    return {
        "step": batch.step,
        "epoch": batch.epoch,
        "view": batch.view,
        "lr": lr,
        "loss": float(alignment.loss),
        "cosine_class": float(alignment.class_cosine),
        "cosine_visible": float(alignment.visible_cosine),
        "cosine_masked": float(alignment.masked_cosine),
        "grad_norm": float(figures.grad_norm),
        "applied": figures.applied,
    }


def _tell(progress: Progress, batch: Batch, record: dict) -> None:
    if batch.drifted is not None:
        progress.warn(
            f"Another image decoder than at extraction: the pixels of {batch.drifted!r} differ by less than half a "
            "grey level. Training goes on; stored crops would end the question."
        )
    shown = ("loss", "cosine_class", "cosine_visible", "cosine_masked", "images_per_s", "epoch")
    progress.advance(0, **{name: record[name] for name in shown})


def _diverged(run: Path, batch: Batch) -> TrainingDiverged:
    path = run / f"diverged-step-{batch.step}.safetensors"
    with writing(run):
        write_whole(path, safetensors.torch.save(batch.tensors(), {"step": str(batch.step)}), scratch=run)
    return TrainingDiverged(
        f"{run}: loss or gradients were not finite in {MAX_SKIPPED} steps in a row, up to step {batch.step}. The last "
        f"batch is in {path}; the last checkpoint is untouched. Lower optimizer.lr, or train in fp32 with --set "
        "precision=fp32."
    )
