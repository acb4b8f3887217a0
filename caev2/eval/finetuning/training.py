"""One step of fine-tuning, and the loop over epochs: train, judge, log, save."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from caev2.errors import FirstRankRefused, TrainingDiverged
from caev2.eval.finetuning.augmentation import Mixer
from caev2.eval.finetuning.batches import TunedBatch
from caev2.eval.finetuning.judging import Judging
from caev2.eval.finetuning.layer_decay import set_learning_rates
from caev2.eval.finetuning.model import FineTuner
from caev2.pretrain.learning.ema import Average
from caev2.pretrain.learning.schedule import CosineSchedule
from caev2.pretrain.learning.step import unchanging_buffers
from caev2.pretrain.student.encoder import Encoder
from caev2.pretrain.supply.order import RowOrder
from caev2.pretrain.together.ranks import Agreement, Company
from caev2.pretrain.together.signals import Leaving
from caev2.pretrain.training import Lines
from caev2.pretrain.weights.checkpoint import save_checkpoint
from caev2.progress import Progress

LOOK_STEPS = 10
"""Steps between looks at the loss: each look waits for the device."""
AVERAGED = ", weights averaged"
"""What is added to a name where the moving average of the weights is judged."""


class TuneStep:
    """Trains a model on labelled images, a batch at a time.

    Args:
        model: On its device; of several ranks, each has a copy.
        optimizer: Over its parameters, with an `lr_scale` in every group.
        mixer: Mixes images and makes soft labels.
        bf16: Whether the model runs under autocast; the loss stays in float32.
        clip_norm: Largest norm of the gradients; none: not clipped.
        accumulate: In how many parts a batch goes through the model.
        company: The ranks that share the batch.
    """

    def __init__(
        self,
        model: FineTuner,
        optimizer: torch.optim.Optimizer,
        mixer: Mixer,
        *,
        bf16: bool,
        clip_norm: float | None,
        accumulate: int,
        company: Company,
    ):
        self._model: nn.Module = model
        if company.ranks.count > 1:
            # a teacher may have parameters that no patch depends on; a student has none
            unused = not isinstance(model.encoder, Encoder)
            self._model = DistributedDataParallel(
                model, gradient_as_bucket_view=True, find_unused_parameters=unused, **unchanging_buffers()
            )
        self._optimizer, self._mixer, self._bf16 = optimizer, mixer, bf16
        self._clip_norm, self._accumulate, self._rank = clip_norm, accumulate, company.ranks.index
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def __call__(self, batch: TunedBatch, lr: float) -> Float[Tensor, ""]:
        """Train on one batch, and return the loss of this rank's images before it."""
        first_image = self._rank * len(batch.images)
        images, targets = self._mixer(batch.images, batch.labels, step=batch.step, first_image=first_image)
        self._optimizer.zero_grad(set_to_none=True)
        size, losses = len(images) // self._accumulate, []
        for begin in range(0, len(images), size):
            part = slice(begin, begin + size)
            keep = None if batch.keep is None else batch.keep[:, part]
            with self._apart(begin + size < len(images)):
                loss = self._loss(images[part], targets[part], keep)
                (loss / self._accumulate).backward()
            losses.append(loss.detach())
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        set_learning_rates(self._optimizer, lr)
        self._optimizer.step()
        return torch.stack(losses).mean()

    def _loss(self, images: Tensor, targets: Tensor, keep: Tensor | None) -> Float[Tensor, ""]:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._bf16):
            scores = self._model(images, keep)
        return cross_entropy(scores.float(), targets)

    def _apart(self, wanted: bool) -> contextlib.AbstractContextManager:
        """Add up gradients here, and leave the other ranks to themselves."""
        if wanted and isinstance(self._model, DistributedDataParallel):
            return self._model.no_sync()
        return contextlib.nullcontext()


@dataclass(slots=True)
class TunedState:
    """What training changes, and where it is kept."""

    out: Path
    fingerprint: str
    model: FineTuner
    optimizer: torch.optim.Optimizer
    average: Average[FineTuner] | None
    step: int
    """Steps done."""
    keep_checkpoints: int

    def save(self) -> None:
        """Write a checkpoint."""
        save_checkpoint(
            self.out / "checkpoints",
            self.model,
            self.optimizer,
            step=self.step,
            fingerprint=self.fingerprint,
            keep_last=self.keep_checkpoints,
            average=self.average,
        )


@dataclass(slots=True, kw_only=True)
class TuneLoop:
    """Trains until the batches end, or somebody asks to leave; after every epoch all of `val` is judged."""

    state: TunedState
    step: TuneStep
    schedule: CosineSchedule
    order: RowOrder
    judging: Judging
    company: Company
    log: Lines
    progress: Progress
    answers: dict[str, Int64[Tensor, " image"]] = field(default_factory=dict)
    """What was said last of every image: by the model, and by its average if there is one."""
    losses: list[Tensor] = field(default_factory=list)
    """Of the steps of this epoch, still on the device."""

    def run(self, batches: Iterator[TunedBatch], leaving: Leaving, agreement: Agreement) -> int:
        """Train, and return the signal that made it leave early; 0: none did.

        Raises:
            TrainingDiverged: The loss was not finite.
            OutputError: Log or checkpoint cannot be written.
        """
        alone, asked = self.company.ranks.count == 1, 0
        # together they leave at the step that they agree on, and until then nobody may miss one
        for batch in leaving.until_asked(batches) if alone else batches:
            self._train(batch)
            asked = agreement.reach(leaving.number or 0)
            if asked:
                break
        said_last = agreement.end()
        asked = asked or said_last or (leaving.number or 0 if alone else 0)
        if asked and self.losses:
            self._look()
            self._save()
        return asked

    def judge(self) -> dict[str, float]:
        """Ask the model, and its average, of every image; their accuracies."""
        self.answers = {"": self.judging.predict(self.state.model)}
        if self.state.average is not None:
            self.answers[AVERAGED] = self.judging.predict(self.state.average.student)
        labels = torch.tensor(self.judging.source.labels)
        return {name: float((said == labels).double().mean()) for name, said in self.answers.items()}

    def _train(self, batch: TunedBatch) -> None:
        lr = self.schedule.lr_at(batch.step)
        self.losses.append(self.step(batch, lr))
        if self.state.average is not None:
            self.state.average.update(batch.step)
        self.state.step = batch.step + 1
        self.progress.advance(1)
        if self.state.step % self.order.steps_per_epoch == 0:
            self._end_epoch(lr)
        elif self.state.step % LOOK_STEPS == 0:
            self._look()

    def _end_epoch(self, lr: float) -> None:
        """Judge first and save then: where the judgement fails, the epoch before it is what is kept."""
        step, loss, epoch = self.state.step - 1, self._look(), self.order.epoch_of(self.state.step - 1)
        self.losses.clear()
        accuracy = self.judge()
        record = {"step": step, "epoch": epoch, "lr": lr, "loss": loss, "accuracy": accuracy[""]}
        if AVERAGED in accuracy:
            record["ema_accuracy"] = accuracy[AVERAGED]
        self.log.write(record)
        shown = ", ".join(f"{100 * value:.2f} %{name}" for name, value in accuracy.items())
        self.progress.say(f"epoch {epoch}: {shown}; loss {loss:.3f}")
        self._save()

    def _look(self) -> float:
        """Wait for the steps so far; the mean loss of those of this epoch that were done here, over all ranks.

        Raises:
            TrainingDiverged: It is not finite.
        """
        loss = float(self.company.average(torch.stack(self.losses).mean()))
        if not math.isfinite(loss):
            problem = TrainingDiverged(
                f"{self.state.out}: the loss was not finite, at the latest in step {self.state.step - 1}. The last "
                "checkpoint is untouched. Lower optimizer.lr, or --set precision=fp32, and give another --out."
            )
            raise problem if self.company.ranks.is_first else FirstRankRefused(str(problem))
        last = self.state.step - 1
        self.progress.advance(0, loss=loss, epoch=self.order.epoch_of(last), lr=self.schedule.lr_at(last))
        return loss

    def _save(self) -> None:
        if self.company.ranks.is_first:
            self.log.flush()
            self.state.save()
