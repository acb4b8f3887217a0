"""Where a run goes on: at its newest sound checkpoint. Nothing damaged is skipped in silence, or removed."""

import re
from pathlib import Path

import torch
from torch import nn

from caev2.errors import CheckpointDamaged, CheckpointError
from caev2.pretrain.identity import FILE_NAME
from caev2.pretrain.learning.ema import Average
from caev2.pretrain.weights.checkpoint import (
    Checkpoint,
    Position,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    read_checkpoint,
)
from caev2.progress import Progress
from caev2.store.disk import replace_file, writing

_SCRATCH = re.compile(r"[0-9a-f]{32}")
"""Names of files that `write_whole` has not moved to their place yet."""


def refuse_existing(run: Path) -> None:
    """Check that there is no run at a path, be it one that was killed before its first checkpoint.

    Raises:
        CheckpointError: There is one.
    """
    checkpoint = latest_checkpoint(run / "checkpoints")
    if checkpoint is None and not (run / FILE_NAME).exists():
        return
    found = "is a run already" if checkpoint is None else f"already has a checkpoint at step {checkpoint.step}"
    raise CheckpointError(f"{run} {found}. Go on with --resume auto, or give another path.")


def remove_scratch(run: Path) -> None:
    """Remove half-written files that killed trainers left; whoever calls holds the run's lock.

    Raises:
        OutputError: They cannot be removed.
    """
    with writing(run):
        for path in run.iterdir():
            if _SCRATCH.fullmatch(path.name):
                path.unlink()


def load_newest(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    fingerprint: str,
    progress: Progress,
    average: Average | None = None,
) -> Position | None:
    """Put weights and optimiser back as the newest sound checkpoint has them.

    Newer ones that are damaged get a name that no run looks for, and a warning each: the steps after the sound one
    are trained again. Nothing is touched if none is sound.

    Args:
        folder: Where the checkpoints are.
        model: Of the same sizes.
        optimizer: AdamW over the model's parameters.
        fingerprint: Of the run that goes on.
        progress: Who is warned.
        average: Of the weights, if the run keeps one.

    Returns:
        Where the run is; none: there is no checkpoint.

    Raises:
        CheckpointDamaged: There are checkpoints, and none of them is sound.
        CheckpointError: One is of another run, of another version or cannot be read: that is for a human to decide.
    """
    damaged: list[tuple[Checkpoint, CheckpointDamaged]] = []
    for checkpoint in reversed(list_checkpoints(folder)):
        try:
            position = load_checkpoint(checkpoint.path, model, optimizer, fingerprint=fingerprint, average=average)
        except CheckpointDamaged as problem:
            damaged.append((checkpoint, problem))
            continue
        for unsound, problem in damaged:
            aside = _set_aside(unsound.path)
            progress.warn(
                f"{problem} Steps {position.step} to {unsound.step} are trained again. It was moved to {aside}."
            )
        return position
    if damaged:
        raise damaged[0][1]
    return None


def newest_sound(folder: Path) -> Checkpoint | None:
    """The checkpoint that `load_newest` would take; it is read whole to find out.

    Raises:
        CheckpointDamaged: There are checkpoints, and none of them is sound.
        CheckpointError: One is of another version, or cannot be read.
    """
    damaged: list[CheckpointDamaged] = []
    for checkpoint in reversed(list_checkpoints(folder)):
        try:
            read_checkpoint(checkpoint.path)
        except CheckpointDamaged as problem:
            damaged.append(problem)
            continue
        return checkpoint
    if damaged:
        raise damaged[0]
    return None


def _set_aside(path: Path) -> Path:
    """Keep a damaged file under another name: it is evidence, and in its place it would push a sound one out."""
    aside = path.with_name(path.name + ".damaged")
    with writing(path):
        replace_file(path, aside)
    return aside
