"""Checkpoints: one safetensors file each, written whole, verified when read.

A file holds the weights (`model/<name>`), AdamW's state of every trained parameter (`exp_avg/<name>`,
`exp_avg_sq/<name>`, `steps/<name>`), and as metadata the number of steps done, the run's fingerprint and a
digest over all of it. A resumed run goes on from these bits exactly.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import xxhash
from torch import Tensor, nn

from caev2.errors import CheckpointError, OutputError
from caev2.pretrain.moments import moment_state, moment_tensors
from caev2.store.disk import flush_file, replace_file

FORMAT = "caev2 checkpoint 1"
_MODEL = "model/"
_METADATA = "caev2"  # one entry: safetensors writes several in an order that changes from run to run
_NAME = re.compile(r"step-(\d{9})\.safetensors")
_DAMAGED = (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint on disk, not read yet."""

    path: Path
    step: int
    """Steps that were done when it was written; training goes on with the step of this number."""


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """The checkpoints of a folder, earliest first."""
    found = [(path, _NAME.fullmatch(path.name)) for path in folder.glob("step-*.safetensors")]
    return sorted(
        (Checkpoint(path=path, step=int(match[1])) for path, match in found if match),
        key=lambda one: one.step,
    )


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The last checkpoint of a folder, sound or not: loading refuses a damaged one, nothing skips it."""
    return next(reversed(list_checkpoints(folder)), None)


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    fingerprint: str,
    keep_last: int,
) -> Checkpoint:
    """Write `step-<number>.safetensors` whole, then remove all but the last few.

    Raises:
        OutputError: It cannot be written; older checkpoints stay as they are.
    """
    tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
    tensors |= moment_tensors(model, optimizer)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata: dict[str, Any] = {"format": FORMAT, "step": step, "fingerprint": fingerprint}
    metadata["digest"] = digest_tensors(tensors, metadata)
    path = folder / f"step-{step:09d}.safetensors"
    with _writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        _write_whole(path, tensors, metadata)
    for old in list_checkpoints(folder)[:-keep_last]:
        old.path.unlink(missing_ok=True)
    return Checkpoint(path=path, step=step)


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, fingerprint: str) -> int:
    """Put weights and optimiser back as they were, to the last bit.

    Args:
        path: The checkpoint.
        model: Of the same sizes.
        optimizer: AdamW over the model's parameters.
        fingerprint: Of the run that goes on.

    Returns:
        The number of steps done.

    Raises:
        CheckpointError: It is damaged, no checkpoint, of another run or of other sizes. Nothing was changed.
    """
    tensors, metadata = read_checkpoint(path)
    _check_run(path, metadata, fingerprint)
    weights, moments = _split(tensors)
    _check_fit(path, model, weights)
    state = moment_state(path, model, optimizer, moments)
    model.load_state_dict(weights)
    optimizer.load_state_dict(state)
    return metadata["step"]


def load_weights(path: Path, model: nn.Module, *, fingerprint: str) -> int:
    """Put the weights of a checkpoint into a model, and return the number of steps done.

    Args:
        path: The checkpoint.
        model: Of the same sizes.
        fingerprint: Of the run whose weights are wanted.

    Raises:
        CheckpointError: It is damaged, no checkpoint, of another run or of other sizes. Nothing was changed.
    """
    tensors, metadata = read_checkpoint(path)
    _check_run(path, metadata, fingerprint)
    weights, _ = _split(tensors)
    _check_fit(path, model, weights)
    model.load_state_dict(weights)
    return metadata["step"]


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors and the metadata of a checkpoint, verified; nothing in the file is ever run.

    Raises:
        CheckpointError: There is none, or it is damaged or of another kind.
    """
    try:
        return _read_verified(path)
    except (FileNotFoundError, IsADirectoryError):
        raise CheckpointError(f"There is no checkpoint at {path}.") from None
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be read: {problem.strerror or problem}. Check the disk.") from None
    except _DAMAGED as problem:
        raise CheckpointError(f"{path} is damaged or no checkpoint ({problem}). {_way_out(path)}") from None


def _read_verified(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    stated = metadata.pop("digest")
    found = digest_tensors(tensors, metadata)
    if found != stated:
        raise ValueError(f"the digest of its content is {found}, it was {stated} when written")
    return tensors, metadata


def _way_out(path: Path) -> str:
    """What to do about a damaged checkpoint: the one before it, if that is sound."""
    match = _NAME.fullmatch(path.name)
    earlier = [one for one in list_checkpoints(path.parent) if match and one.step < int(match[1])]
    for checkpoint in reversed(earlier):
        try:
            _read_verified(checkpoint.path)
        except (OSError, *_DAMAGED):
            continue
        return f"{checkpoint.path.name} before it is sound: remove the damaged file to go on from there."
    return "There is no sound one before it: bring it back from a copy, or start a new run."


def digest_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """xxh3-128 over the metadata and the name, type, shape and bytes of every tensor, which lie on the CPU."""
    digest = xxhash.xxh3_128(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights by name, and what the optimiser keeps."""
    weights = {key.removeprefix(_MODEL): tensor for key, tensor in tensors.items() if key.startswith(_MODEL)}
    return weights, {key: tensor for key, tensor in tensors.items() if not key.startswith(_MODEL)}


def _check_run(path: Path, metadata: Mapping[str, Any], fingerprint: str) -> None:
    if metadata["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"{path} belongs to a run with fingerprint {metadata['fingerprint']}, the run of its folder has "
            f"{fingerprint}: it was copied here from elsewhere. Remove it to go on from the checkpoint before it, or "
            "give another path for a new run."
        )


def _check_fit(path: Path, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    expected = model.state_dict()
    for name in [*expected, *(name for name in weights if name not in expected)]:
        here = tuple(expected[name].shape) if name in expected else None
        there = tuple(weights[name].shape) if name in weights else None
        if here != there:
            raise CheckpointError(
                f"{path} is of a student of other sizes: its {name} has shape {there or 'none'}, this one's "
                f"{here or 'none'}. Give the recipe it was trained with."
            )


def _write_whole(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        safetensors.torch.save_file(tensors, temporary, {_METADATA: json.dumps(metadata)})
        with temporary.open("rb") as file:
            flush_file(file.fileno())
        replace_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a killed writer left behind."""
    for path in folder.glob(".step-*.tmp"):
        path.unlink()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn a failure to write into an `OutputError`; safetensors wraps the system's own."""
    try:
        yield
    except (OSError, safetensors.SafetensorError) as problem:
        number = re.search(r"\(os error (\d+)\)", str(problem))
        code = problem.errno if isinstance(problem, OSError) else int(number[1]) if number else None
        reason = str(problem) if code is None else os.strerror(code)
        raise OutputError(
            f"Cannot write {path}: {reason}. Checkpoints written before are untouched; make space and "
            "run the same command again."
        ) from problem
