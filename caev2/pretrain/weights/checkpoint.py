"""Checkpoints: one safetensors file each, written whole, verified when read.

A file holds the weights (`model/<name>`), AdamW's state of every trained parameter (`exp_avg/<name>`,
`exp_avg_sq/<name>`, `steps/<name>`), the moving average of the weights if there is one (`ema/<name>`), and as metadata
the number of steps done, how many steps right before it were skipped, the run's fingerprint and a digest over all of
it. A resumed run goes on from these bits exactly.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from caev2.errors import CheckpointDamaged, CheckpointError
from caev2.pretrain.learning.ema import Average
from caev2.pretrain.weights.moments import moment_state, moment_tensors
from caev2.pretrain.weights.tensor_file import DAMAGED, OtherKind, read_tensors, write_tensors
from caev2.store.disk import writing

FORMAT = "caev2 checkpoint 1"
_MODEL, _EMA = "model/", "ema/"
_NAME = re.compile(r"step-(\d{9})\.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint on disk, not read yet."""

    path: Path
    step: int
    """Steps that were done when it was written; training goes on with the step of this number."""


class Position(NamedTuple):
    """Where a run is."""

    step: int
    """Steps done."""
    skipped: int
    """How many of them, up to the last one and without a gap, were skipped because they were not finite."""


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """The checkpoints of a folder, earliest first."""
    found = [(path, _NAME.fullmatch(path.name)) for path in folder.glob("step-*.safetensors")]
    return sorted(
        (Checkpoint(path=path, step=int(match[1])) for path, match in found if match),
        key=lambda one: one.step,
    )


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The last checkpoint of a folder, sound or not: loading refuses a damaged one."""
    return next(reversed(list_checkpoints(folder)), None)


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    fingerprint: str,
    keep_last: int,
    skipped: int = 0,
    average: Average | None = None,
) -> Checkpoint:
    """Write `step-<number>.safetensors` whole, then remove all but the last few.

    Raises:
        OutputError: It cannot be written; older checkpoints stay as they are.
    """
    tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
    tensors |= moment_tensors(model, optimizer)
    if average is not None:
        tensors |= {_EMA + name: tensor for name, tensor in average.weights.items()}
    path = folder / f"step-{step:09d}.safetensors"
    facts: dict[str, Any] = {"format": FORMAT, "step": step, "fingerprint": fingerprint}
    write_tensors(path, tensors, facts | ({"skipped": skipped} if skipped else {}))
    with writing(folder):
        for old in list_checkpoints(folder)[:-keep_last]:
            old.path.unlink(missing_ok=True)
    return Checkpoint(path=path, step=step)


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    fingerprint: str,
    average: Average | None = None,
) -> Position:
    """Put weights and optimiser back as they were, to the last bit.

    Args:
        path: The checkpoint.
        model: Of the same sizes.
        optimizer: AdamW over the model's parameters.
        fingerprint: Of the run that goes on.
        average: Of the weights, which goes on as well; none: the run keeps none.

    Raises:
        CheckpointDamaged: It is damaged, or no checkpoint. Nothing was changed.
        CheckpointError: It is of another run or of other sizes. Nothing was changed.
    """
    tensors, metadata = read_checkpoint(path)
    _check_run(path, metadata, fingerprint)
    weights, averaged, moments = _split(tensors)
    check_fit(path, model, weights)
    state = moment_state(path, model, optimizer, moments)
    if average is not None:
        check_fit(path, model, averaged)
        average.load(averaged)
    model.load_state_dict(weights)
    optimizer.load_state_dict(state)
    return Position(metadata["step"], metadata.get("skipped", 0))


def load_weights(path: Path, model: nn.Module, *, fingerprint: str, averaged: bool = False) -> int:
    """Put the weights of a checkpoint into a model, and return the number of steps done.

    Args:
        path: The checkpoint.
        model: Of the same sizes.
        fingerprint: Of the run whose weights are wanted.
        averaged: Whether their moving average is wanted.

    Raises:
        CheckpointError: It is damaged, no checkpoint, of another run or of other sizes. Nothing was changed.
    """
    tensors, metadata = read_checkpoint(path)
    _check_run(path, metadata, fingerprint)
    weights, average, _ = _split(tensors)
    if averaged and not average:
        raise CheckpointError(_say_no_average(path))
    wanted = average if averaged else weights
    check_fit(path, model, wanted)
    model.load_state_dict(wanted)
    return metadata["step"]


def read_named_weights(path: Path, *, averaged: bool = False) -> dict[str, Tensor]:
    """The weights of a checkpoint by name, whatever model they are of; with `averaged`, their moving average.

    Raises:
        CheckpointError: It is damaged, no checkpoint, or keeps no average.
    """
    weights, average, _ = _split(read_checkpoint(path)[0])
    if averaged and not average:
        raise CheckpointError(_say_no_average(path))
    return average if averaged else weights


def _say_no_average(path: Path) -> str:
    return f"{path} holds no moving average: its run kept none. Train with --set ema_decay=0.9999."


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors and the metadata of a checkpoint, verified; nothing in the file is ever run.

    Raises:
        CheckpointDamaged: It is damaged, or no such file at all.
        CheckpointError: There is none, it is of another version, or the system cannot read it.
    """
    try:
        return read_tensors(path, FORMAT)
    except (FileNotFoundError, IsADirectoryError):
        raise CheckpointError(f"There is no checkpoint at {path}.") from None
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be read: {problem.strerror or problem}. Check the disk.") from None
    except OtherKind as problem:
        raise CheckpointError(
            f"{path} is no checkpoint of this version: {problem}. Go on with the version that wrote it, or move the "
            "file away."
        ) from None
    except DAMAGED as problem:
        raise CheckpointDamaged(f"{path} is damaged or no checkpoint ({problem}). {_way_out(path)}") from None


def _way_out(path: Path) -> str:
    """What to do about a damaged checkpoint: the one before it, if that is sound."""
    match = _NAME.fullmatch(path.name)
    earlier = [one for one in list_checkpoints(path.parent) if match and one.step < int(match[1])]
    for checkpoint in reversed(earlier):
        try:
            read_tensors(checkpoint.path, FORMAT)
        except (OSError, *DAMAGED):
            continue
        return f"{checkpoint.path.name} before it is sound: `caev2 pretrain` goes on from there."
    return "There is no sound one before it: bring it back from a copy, or start a new run."


def _split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The weights by name, their average, and what the optimiser keeps."""
    weights, average = (
        {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        for prefix in (_MODEL, _EMA)
    )
    return weights, average, {key: one for key, one in tensors.items() if not key.startswith((_MODEL, _EMA))}


def _check_run(path: Path, metadata: Mapping[str, Any], fingerprint: str) -> None:
    if metadata["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"{path} belongs to a run with fingerprint {metadata['fingerprint']}, the run of its folder has "
            f"{fingerprint}: it was copied here from elsewhere. Remove it to go on from the checkpoint before it, or "
            "give another path for a new run."
        )


def check_fit(path: Path, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Check that weights are of a model's sizes.

    Raises:
        CheckpointError: They are not; the message names the first difference and `path`, where they came from.
    """
    expected = model.state_dict()
    for name in [*expected, *(name for name in weights if name not in expected)]:
        here = tuple(expected[name].shape) if name in expected else None
        there = tuple(weights[name].shape) if name in weights else None
        if here != there:
            raise CheckpointError(
                f"{path} is of a student of other sizes: its {name} has shape {there or 'none'}, this one's "
                f"{here or 'none'}. Give the recipe it was trained with."
            )
