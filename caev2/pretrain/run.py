"""Stage two: train the student against stored targets, without loading a teacher."""

import dataclasses
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor

from caev2.errors import CheckpointError, ConfigError, StoreMismatch, TrainingDiverged
from caev2.pretrain.batches import Batch, StepBatches, load_batches
from caev2.pretrain.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from caev2.pretrain.identity import RunIdentity, claim_run, identify
from caev2.pretrain.log import Log
from caev2.pretrain.model import CAEv2, build
from caev2.pretrain.order import RowOrder
from caev2.pretrain.parameters import adamw
from caev2.pretrain.recipes import PretrainRecipe
from caev2.pretrain.schedule import CosineSchedule
from caev2.pretrain.step import StepFigures, train_step
from caev2.progress import Progress, Silent
from caev2.store.disk import write_whole, writing
from caev2.store.images import ImageSource, open_images
from caev2.store.reader import Store
from caev2.store.replay import ViewReplay

MAX_SKIPPED = 3
"""Steps in a row without a finite loss and gradient after which a run stops."""


class Interrupted(Exception):
    """The run was asked to leave, saved a checkpoint and left: no error, it did so in order."""

    def __init__(self, signal_number: int, step: int):
        super().__init__(f"Stopped at step {step}; a checkpoint was saved. The same command goes on from there.")
        self.signal_number = signal_number


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainPlan:
    """What a run will do, known before it starts."""

    images: int
    """Valid images of the store."""
    views: int
    """Stored views that are used."""
    epochs: int
    steps_per_epoch: int
    steps: int
    parameters: int
    """Trained numbers."""
    resume_step: int
    """Where the run goes on; 0 for a new one."""


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
    store: Store | Path | str,
    run: Path | str,
    recipe: PretrainRecipe,
    *,
    images: ImageSource | Path | str,
    device: str = "cpu",
    resume: Literal["auto", "never"] = "auto",
    progress: Progress | None = None,
    stop_after: int | None = None,
) -> PretrainResult:
    """Train a student, or go on with a run that was interrupted.

    On a CPU the weights at the end do not depend on interruptions, to the last bit.

    Args:
        store: Where the targets are.
        run: Folder of the run: `run.json`, `log.jsonl`, `checkpoints/`.
        recipe: Sizes, masks, schedule.
        images: What the store was extracted from: a source, or a folder.
        device: Where to train, as torch spells it.
        resume: `auto` goes on from the latest checkpoint; `never` refuses a run that has one.
        progress: Who is told.
        stop_after: Save a checkpoint and leave after this many steps of the run.

    Raises:
        StoreMismatch: The recipe does not fit the store.
        CheckpointError: Another run lies at the path, or its checkpoint cannot be used.
        PixelDrift: The images are not what the teacher saw.
        TrainingDiverged: Several steps in a row were not finite.
        OutputError: The run cannot be written.
        Interrupted: A signal asked the run to leave; a checkpoint was saved.
    """
    progress = progress or Silent()
    store = store if isinstance(store, Store) else Store(store)
    run = Path(run)
    recipe = fit_recipe(recipe, store)
    precision = recipe.precision or ("bf16" if device.startswith("cuda") else "fp32")
    identity = identify(recipe, store, precision)
    order = _order(recipe, store)
    _schedule(recipe, order)  # refuses before the folder of the run is claimed
    _refuse_old_run(run, resume)
    batches = _batches(recipe, store, images, order)
    with writing(run):
        claim_run(run, identity)
    state = _restore(run, recipe, identity, device)
    return _train(run, recipe, identity, state, batches, precision, device, progress, stop_after)


def plan(recipe: PretrainRecipe, store: Store, run: Path) -> PretrainPlan:
    """What a run will do."""
    recipe = fit_recipe(recipe, store)
    order = _order(recipe, store)
    with torch.device("meta"):
        model = CAEv2(recipe.model)
    checkpoint = latest_checkpoint(run / "checkpoints")
    return PretrainPlan(
        images=len(store.valid_images),
        views=order.views,
        epochs=recipe.epochs,
        steps_per_epoch=order.steps_per_epoch,
        steps=order.total_steps,
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        resume_step=0 if checkpoint is None else checkpoint.step,
    )


def fit_recipe(recipe: PretrainRecipe, store: Store) -> PretrainRecipe:
    """The recipe with its head as wide as the store's target.

    Raises:
        StoreMismatch: Image size, number of patches, views or target do not fit the store.
    """
    spec = store.manifest.spec
    target = spec.targets[store.target(recipe.target)]
    if spec.views.size_px != recipe.model.image_px:
        raise StoreMismatch(
            f"{store.path} holds views of {spec.views.size_px} pixels, the recipe's student takes "
            f"{recipe.model.image_px}. Choose another recipe, or --set model.image_px={spec.views.size_px}."
        )
    if target.tokens != recipe.model.patches + 1:
        raise StoreMismatch(
            f"{store.path} has {target.tokens - 1} patches in an image, the recipe's student {recipe.model.patches}. "
            "Choose a recipe with the teacher's grid, or --set model.patch_px."
        )
    if recipe.views is not None and recipe.views > store.views:
        raise StoreMismatch(
            f"{store.path} has {store.views} views of each image, the recipe asks for {recipe.views}. "
            f"Give --set views={store.views}, or extract more."
        )
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, target_width=target.width))


def _order(recipe: PretrainRecipe, store: Store) -> RowOrder:
    images = len(store.valid_images)
    if images < recipe.batch_size:
        raise ConfigError(
            f"{store.path} has {images} valid images, fewer than one batch of {recipe.batch_size}. "
            f"Give --set batch_size={max(1, images)} or less."
        )
    return RowOrder(
        rows=store.valid_images,
        views=recipe.views or store.views,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        seed=recipe.seed,
    )


def _schedule(recipe: PretrainRecipe, order: RowOrder) -> CosineSchedule:
    return CosineSchedule(
        peak_lr=recipe.optimizer.lr,
        min_lr=recipe.optimizer.min_lr,
        warmup_steps=round(recipe.optimizer.warmup_epochs * order.steps_per_epoch),
        total_steps=order.total_steps,
    )


def _refuse_old_run(run: Path, resume: str) -> None:
    if resume == "never" and (checkpoint := latest_checkpoint(run / "checkpoints")) is not None:
        raise CheckpointError(
            f"{run} already has a checkpoint at step {checkpoint.step}. Go on with --resume auto, or give another path."
        )


def _batches(recipe: PretrainRecipe, store: Store, images: ImageSource | Path | str, order: RowOrder) -> StepBatches:
    source = images if isinstance(images, ImageSource) else open_images(images)
    return StepBatches(
        store=store,
        replay=ViewReplay(store, source),
        order=order,
        model=recipe.model,
        mask=recipe.mask,
        target=recipe.target,
        seed=recipe.seed,
    )


@dataclass(slots=True)
class _State:
    """What training changes."""

    model: CAEv2
    optimizer: torch.optim.Optimizer
    step: int


def _restore(run: Path, recipe: PretrainRecipe, identity: RunIdentity, device: str) -> _State:
    """Fresh weights, or those of the latest checkpoint."""
    model = build(recipe.model, recipe.seed).to(device)
    settings = recipe.optimizer
    optimizer = adamw(model, weight_decay=settings.weight_decay, betas=settings.betas, fused=device.startswith("cuda"))
    checkpoint = latest_checkpoint(run / "checkpoints")
    step = 0
    if checkpoint is not None:
        step = load_checkpoint(checkpoint.path, model, optimizer, fingerprint=identity.fingerprint())
    return _State(model, optimizer, step)


def _train(
    run: Path,
    recipe: PretrainRecipe,
    identity: RunIdentity,
    state: _State,
    batches: StepBatches,
    precision: str,
    device: str,
    progress: Progress,
    stop_after: int | None,
) -> PretrainResult:
    order, schedule = batches.order, _schedule(recipe, batches.order)
    every = recipe.checkpoint_steps or recipe.checkpoint_epochs * order.steps_per_epoch
    first, last = state.step, min(order.total_steps, stop_after or order.total_steps)
    log = Log(run, from_step=first)
    progress.start("pretrain", order.total_steps, first)
    meter = _Meter(recipe.batch_size)
    skipped, loss, caught = 0, None, []

    def save() -> None:
        save_checkpoint(
            run / "checkpoints",
            state.model,
            state.optimizer,
            step=state.step,
            fingerprint=identity.fingerprint(),
            keep_last=recipe.keep_checkpoints,
        )

    try:
        with _catching_signals() as caught:
            for batch in meter.waiting(
                load_batches(batches, range(first, last), recipe.workers, device.startswith("cuda"))
            ):
                # the model stays in training mode: nothing in it but the given keep bits depends on the mode
                lr = schedule.lr_at(batch.step)
                figures = train_step(
                    state.model,
                    state.optimizer,
                    batch.to(device),
                    lr=lr,
                    clip_norm=recipe.optimizer.clip_norm,
                    precision=precision,
                )
                state.step = batch.step + 1
                skipped = 0 if figures.applied else skipped + 1
                if batch.step % recipe.log_steps == 0 or not figures.applied or state.step == last:
                    record = _describe(batch, figures, lr) | meter.read()
                    loss = record["loss"]
                    log.write(record)
                    _tell(progress, batch, record)
                progress.advance(1)
                if skipped == MAX_SKIPPED:
                    raise _diverged(run, batch)
                if state.step % every == 0 or state.step == last or caught:
                    save()
                if caught and state.step < order.total_steps:
                    raise Interrupted(caught[0], state.step)
    finally:
        log.close()
    progress.finish()
    return PretrainResult(run=run, steps=state.step, steps_computed=state.step - first, loss=loss)


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
    tensors = {name: value for name in batch.__dataclass_fields__ if isinstance(value := getattr(batch, name), Tensor)}
    with writing(run):
        write_whole(path, safetensors.torch.save(tensors, {"step": str(batch.step)}), scratch=run)
    return TrainingDiverged(
        f"{run}: loss or gradients were not finite in {MAX_SKIPPED} steps in a row, up to step {batch.step}. The last "
        f"batch is in {path}; the last checkpoint is untouched. Lower optimizer.lr, or train in fp32 with --set "
        "precision=fp32."
    )


class _Meter:
    """Images per second, and how much of the time was spent waiting for batches."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._steps, self._waited, self._since = 0, 0.0, time.perf_counter()

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, timed."""
        while True:
            begun = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - begun
            if batch is None:
                return
            self._steps += 1
            yield batch

    def read(self) -> dict[str, float]:
        """The figures since they were last read."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        figures = {
            "images_per_s": round(self._steps * self._batch_size / seconds, 1),
            "data_wait_percent": round(100 * self._waited / seconds, 1),
        }
        self._steps, self._waited, self._since = 0, 0.0, time.perf_counter()
        return figures


@contextmanager
def _catching_signals() -> Iterator[list[int]]:
    """A list that a SIGTERM or SIGINT is appended to, so that the current step can end."""
    caught: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    try:
        before = {number: signal.signal(number, lambda number, _: caught.append(number)) for number in numbers}
    except ValueError:  # not in the main thread: nobody sends us signals there
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
