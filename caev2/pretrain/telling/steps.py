"""What is said of steps: lines of the log, figures for a bar, warnings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from caev2.pretrain.learning.step import MAX_SKIPPED, StepFigures
from caev2.pretrain.supply.batches import Batch
from caev2.progress import Progress

SHOWN = (
    "loss", "cosine_class", "cosine_visible", "cosine_masked", "images_per_s", "epoch", "data_wait_percent",
    "mfu_percent", "lr",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """A step, told by numbers of this process."""

    step: int
    epoch: int
    view: int
    lr: float
    figures: dict[str, float]
    """Loss, cosines and gradient norm, in the words of the log."""
    skipped: int
    """How many steps up to this one, without a gap, left the weights as they were; 0: this one was applied."""
    drifted: str | None
    """Key of an image that another decoder has changed a little."""

    def line(self) -> dict[str, Any]:
        """A line of the log."""
        about = {"step": self.step, "epoch": self.epoch, "view": self.view, "lr": self.lr}
        return about | self.figures | {"applied": not self.skipped}


class Unread:
    """Steps whose figures are still on the device; they leave it together, in one copy."""

    def __init__(self):
        self._steps: list[tuple[tuple[int, int, int, str | None], float, StepFigures]] = []

    def add(self, batch: Batch, lr: float, figures: StepFigures) -> None:
        """Remember a step that was just begun."""
        self._steps.append(((batch.step, batch.epoch, batch.view, batch.drifted), lr, figures))

    def read(self) -> list[StepRecord]:
        """Wait for these steps, and tell them."""
        steps, self._steps = self._steps, []
        if not steps:
            return []
        numbers = torch.stack([torch.stack(figures) for *_, figures in steps]).tolist()
        return [
            StepRecord(
                step=step, epoch=epoch, view=view, lr=lr, drifted=drifted,
                figures=_named(values[:-1]), skipped=int(values[-1]),
            )
            for ((step, epoch, view, drifted), lr, _), values in zip(steps, numbers, strict=True)
        ]  # fmt: skip


def _named(values: Sequence[float]) -> dict[str, float]:
    names = ("loss", "cosine_class", "cosine_visible", "cosine_masked", "grad_norm")
    return dict(zip(names, values, strict=True))


def warn_of(record: StepRecord, progress: Progress) -> None:
    """Say what there is to worry about in a step."""
    if record.drifted is not None:
        progress.warn(
            f"Another image decoder than at extraction: the pixels of {record.drifted!r} differ by less than half a "
            "grey level. Training goes on; stored crops would end the question."
        )
    if record.skipped:
        progress.warn(
            f"Step {record.step} was skipped: loss {record.figures['loss']}, gradient norm "
            f"{record.figures['grad_norm']}. The weights are as before it. {record.skipped} in a row; a run stops at "
            f"{MAX_SKIPPED}."
        )
