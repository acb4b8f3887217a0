"""The loop: batches in, steps, and now and then a look at the figures, a checkpoint, a judgement."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from caev2.errors import FirstRankRefused, OutputError, TrainingDiverged
from caev2.pretrain.learning.ema import Average
from caev2.pretrain.learning.kept_step import keep_step
from caev2.pretrain.learning.schedule import CosineSchedule
from caev2.pretrain.learning.step import MAX_SKIPPED, Inputs, Objective, TrainStep
from caev2.pretrain.student.model import CAEv2
from caev2.pretrain.supply.batches import Batch
from caev2.pretrain.supply.feed import on_device
from caev2.pretrain.telling.meter import Meter
from caev2.pretrain.telling.steps import SHOWN, StepRecord, Unread, warn_of
from caev2.pretrain.together.ranks import Agreement, Ranks
from caev2.pretrain.together.signals import Leaving
from caev2.pretrain.weights.checkpoint import Position, save_checkpoint
from caev2.progress import Progress


@runtime_checkable
class Lines(Protocol):
    """Where the lines of the log go."""

    def write(self, record: dict[str, Any]) -> None:
        """Append one record."""

    def flush(self) -> None:
        """Wait until all of them are kept."""


@dataclass(slots=True)
class Trained:
    """What training changes, and where it is kept."""

    run: Path
    fingerprint: str
    model: CAEv2
    optimizer: torch.optim.Optimizer
    average: Average[CAEv2] | None
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
            average=self.average,
        )
        self.saved = self.position


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """When something is done besides training, in steps."""

    last: int
    """After this many steps of the run it leaves."""
    log: int
    """Steps between looks at the figures."""
    checkpoint: int
    """Steps between checkpoints."""
    judge: int
    """Steps between judgements, if there is somebody to judge."""

    def is_logged(self, step: int) -> bool:
        """Whether a step is a line of the log, whatever comes of it."""
        return step % self.log == 0 or step + 1 == self.last

    def is_saved(self, done: int) -> bool:
        """Whether a checkpoint is due after so many steps."""
        return done % self.checkpoint == 0 or done == self.last

    def is_judged(self, done: int) -> bool:
        """Whether the student is judged after so many steps."""
        return done % self.judge == 0 or done == self.last


@dataclass(slots=True)
class Loop:
    """Trains from batch to batch until they end, or until somebody asks to leave.

    The figures of a step stay on the device until the next look at them, so a step that is not finite is found some
    steps later. Nothing is lost by that: `TrainStep` stops changing the weights by itself.
    """

    trained: Trained
    step: TrainStep
    schedule: CosineSchedule
    rhythm: Rhythm
    meter: Meter
    device: str
    ranks: Ranks
    log: Lines
    progress: Progress
    keep: "KeepDiverged"
    epoch_of: Callable[[int], int]
    judge: Callable[[CAEv2], Mapping[str, float]] | None = None
    is_judged: bool = True
    """Whether the student at its present step was judged already, if it was to be."""
    steps_skipped: int = 0
    loss: float | None = None
    """Of the last step that was logged and applied."""
    unread: Unread = field(default_factory=Unread)

    def run(self, batches: Iterator[Batch], leaving: Leaving, agreement: Agreement) -> int:
        """Train, and return the signal that made it leave early; 0: none did.

        Raises:
            TrainingDiverged: Several steps in a row were not finite.
            OutputError: Log or checkpoint cannot be written.
        """
        alone, done, asked = self.ranks.count == 1, self.trained.position.step, 0
        if not self.is_judged:
            self._judge(done - 1)
        # together they leave at the step that they agree on, and until then nobody may miss one
        items = leaving.until_asked(batches) if alone else batches
        for batch in on_device(self.meter.waiting(items), self.device):
            lr = self.schedule.lr_at(batch.step)
            self.unread.add(batch, lr, self.step(batch, lr))
            self.meter.count_step()
            if self.trained.average is not None:
                self.trained.average.update(batch.step)
            done = batch.step + 1
            self.progress.advance(1)
            self._look_around(batch)
            asked = agreement.reach(leaving.number or 0)
            if asked:
                break
        said_last = agreement.end()
        asked = asked or said_last or (leaving.number or 0 if alone else 0)
        self._look()
        if asked and done < self.rhythm.last:
            self._save()
        return asked

    def _look_around(self, batch: Batch) -> None:
        """Do what is due after a step; what was learnt is saved before time is spent on judging it."""
        done, rhythm = batch.step + 1, self.rhythm
        judged = self.judge is not None and rhythm.is_judged(done)
        if rhythm.is_logged(batch.step) or rhythm.is_saved(done) or judged:
            self._look()
        if rhythm.is_saved(done):
            self._save()
        if judged:
            self._judge(batch.step)

    def _judge(self, step: int) -> None:
        """A line of its own with what the judge says of the student, and of its averaged weights."""
        if self.judge is None:
            return
        with self.meter.resting():
            found = dict(self.judge(self.trained.model))
            if self.trained.average is not None:
                averaged = self.judge(self.trained.average.student)
                found |= {f"ema_{name}": value for name, value in averaged.items()}
        if found:
            epoch = self.epoch_of(step)
            self.log.write({"step": step, "epoch": epoch, **found})
            self.progress.say(f"epoch {epoch}: " + ", ".join(f"{name} {value}" for name, value in found.items()))

    def _look(self) -> None:
        """Wait for the steps so far, and tell what came of them.

        Raises:
            TrainingDiverged: Several steps in a row were not finite.
        """
        records = self.unread.read()
        speed = self.meter.read() if records else {}
        for record in records:
            self.trained.position = Position(record.step + 1, record.skipped)
            self.steps_skipped += bool(record.skipped)
            if record.skipped or self.rhythm.is_logged(record.step):
                self._tell(record, {**record.line(), **speed})
            if record.skipped == MAX_SKIPPED:
                problem = self.keep(record)
                raise problem if self.ranks.is_first else FirstRankRefused(str(problem))

    def _tell(self, record: StepRecord, line: dict[str, Any]) -> None:
        self.log.write(line)
        warn_of(record, self.progress)
        self.progress.advance(0, **{name: line[name] for name in SHOWN if line.get(name) is not None})
        if not record.skipped:
            self.loss = record.figures["loss"]

    def _save(self) -> None:
        if self.ranks.is_first:
            with self.meter.resting():
                self.log.flush()
                self.trained.save()


@dataclass(frozen=True, slots=True)
class KeepDiverged:
    """Keeps the step that ended a run, for a replay: its batch is made once more, its weights are still there."""

    run: Path
    objective: Objective
    inputs: Inputs
    batch_of: Callable[[int], Batch]
    device: str
    ranks: Ranks
    accumulate: int

    def __call__(self, record: StepRecord) -> TrainingDiverged:
        """Write the file, and say where it is."""
        path = self.run / f"diverged-step-{record.step}{self._of_rank()}.safetensors"
        batch = self.batch_of(record.step).to(self.device)
        try:
            keep_step(
                path,
                self.objective,
                batch,
                self.inputs(batch)[1],
                device=self.device,
                figures=record.figures,
                accumulate=self.accumulate,
            )
            kept = f"`caev2 pretrain --replay {path}` shows the last one again"
            if self.ranks.count > 1:
                kept += " (of this rank's images; the others kept theirs beside it)"
        except OutputError as problem:
            kept = f"The last one is not kept for a replay. {problem}"
        return TrainingDiverged(
            f"{self.run}: loss or gradients were not finite in {MAX_SKIPPED} steps in a row, up to step "
            f"{record.step}. {kept.rstrip('.')}. The last checkpoint is untouched. Lower optimizer.lr, or train in "
            "fp32 with --set precision=fp32."
        )

    def _of_rank(self) -> str:
        """Each rank has its own share of the batch, and only one may be to blame."""
        return f"-rank-{self.ranks.index}" if self.ranks.count > 1 else ""
