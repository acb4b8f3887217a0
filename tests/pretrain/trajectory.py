"""The published trajectories through the training loop itself: `python -m tests.pretrain.trajectory NAME FOLDER`."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from caev2.pretrain.learning.schedule import CosineSchedule
from caev2.pretrain.learning.step import Objective, TrainStep
from caev2.pretrain.student.parameters import adamw
from caev2.pretrain.supply.batches import Batch
from caev2.pretrain.telling.meter import Meter
from caev2.pretrain.together.ranks import ALONE, Agreement
from caev2.pretrain.together.signals import catching_signals
from caev2.pretrain.training import KeepDiverged, Loop, Rhythm, Trained
from caev2.pretrain.weights.checkpoint import Position
from caev2.progress import Silent

from .parity import Oracle, read_oracle, split_mask


def batch_of(oracle: Oracle, mask: Tensor) -> Batch:
    """What the training loop would hand to its step; the images come beside it, normalised already."""
    visible, masked = split_mask(mask)
    count, size = len(mask), oracle.settings.image_px
    return Batch(
        step=0,
        epoch=0,
        view=0,
        rows=torch.arange(count),
        crops=torch.zeros((count, size, size, 3), dtype=torch.uint8),
        targets=oracle["input/target_tokens"],
        visible=visible,
        masked=masked,
        keep=None,
        drifted=None,
    )


class OracleInputs:
    """The images of the file, which are normalised, and its targets, which are decoded; rolled as the steps go on."""

    def __init__(self, oracle: Oracle):
        self.oracle = oracle

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.oracle["input/images"].roll(batch.step, -1), batch.targets

    def compile(self) -> None:
        """There is nothing to compile."""


def batches_of(oracle: Oracle, steps: int) -> Iterator[Batch]:
    """What a loader would give."""
    for step in range(steps):
        yield dataclasses.replace(batch_of(oracle, oracle["input/mask"].roll(step, 1)), step=step)


class Heard:
    """A log in memory."""

    def __init__(self):
        self.records = []

    def write(self, record: dict) -> None:
        self.records.append(record)

    def flush(self) -> None:
        """Nothing waits."""


def follow(oracle: Oracle, folder: Path, *, compiled: bool) -> list[dict]:
    """The lines of the log of a training like the published one."""
    training, model, steps = oracle.training, oracle.student().train(), len(oracle["trajectory/loss"])
    optimizer = adamw(model, weight_decay=training["weight_decay"])
    objective, inputs, log = Objective(model), OracleInputs(oracle), Heard()
    loop = Loop(
        trained=Trained(folder, "", model, optimizer, None, Position(0, 0), 1, None),
        step=TrainStep(objective, optimizer, inputs, clip_norm=training["clip_grad"], compiled=compiled),
        schedule=CosineSchedule(
            peak_lr=training["peak_lr"],
            min_lr=training["min_lr"],
            warmup_steps=int(training["warmup_steps"]),
            total_steps=steps,
        ),
        rhythm=Rhythm(last=steps, log=1, checkpoint=steps, judge=steps),
        meter=Meter(len(oracle["input/mask"])),
        device="cpu",
        ranks=ALONE,
        log=log,
        progress=Silent(),
        keep=KeepDiverged(folder, objective, inputs, list(batches_of(oracle, steps)).__getitem__, "cpu", ALONE, 1),
        epoch_of=lambda step: 0,
    )
    with catching_signals() as leaving:
        assert loop.run(batches_of(oracle, steps), leaving, Agreement(ALONE)) == 0
    return log.records


if __name__ == "__main__":
    records = follow(read_oracle(sys.argv[1]), Path(sys.argv[2]), compiled=True)
    print(json.dumps([records, torch._dynamo.utils.counters["stats"]["unique_graphs"]]))
