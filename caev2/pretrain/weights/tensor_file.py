"""Named tensors and a few facts in one safetensors file: written whole, verified when read, never run.

The facts are one JSON entry of the file's metadata. Among them are the kind of the file, `format`, and a digest over
the other facts and all tensors.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import xxhash
from torch import Tensor

from caev2.errors import OutputError
from caev2.store.disk import flush_file, flush_folder, replace_file

_FACTS = "caev2"  # one entry: safetensors writes several in an order that changes from run to run
DAMAGED = (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError)
"""What `read_tensors` raises of a file that is not what was written."""


class OtherKind(ValueError):
    """A file of another kind, or of another version."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a file so that it is there whole or not at all; its folder is made if need be.

    Raises:
        OutputError: It cannot be written; what lies there is left alone.
    """
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    stated = {**facts, "digest": digest_tensors(kept, facts)}
    with _writing(path):
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            flush_folder(path.parent.parent)
        _remove_abandoned(path.parent)
        _write_whole(path, kept, stated)


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors and facts of a file, verified.

    Args:
        path: The file.
        kind: What its fact `format` has to be.

    Raises:
        OSError: It cannot be read.
        OtherKind: It is of another kind.
        ValueError: It is damaged; any other of `DAMAGED` says so too.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        facts = json.loads((file.metadata() or {}).get(_FACTS, "{}"))
        if facts.get("format") != kind:
            raise OtherKind(f"its format is {facts.get('format')!r}, not {kind!r}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    stated = facts.pop("digest")
    found = digest_tensors(tensors, facts)
    if found != stated:
        raise ValueError(f"the digest of its content is {found}, it was {stated} when written")
    return tensors, facts


def digest_tensors(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """xxh3-128 over the facts and the name, type, shape and bytes of every tensor, which lie on the CPU."""
    digest = xxhash.xxh3_128(json.dumps(dict(facts), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _write_whole(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        safetensors.torch.save_file(tensors, temporary, {_FACTS: json.dumps(facts)})
        with temporary.open("rb") as file:
            flush_file(file.fileno())
        replace_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a killed writer left behind."""
    for pattern in (".*.safetensors.tmp", ".tmp??????"):  # ours, and the name that safetensors itself writes under
        for path in folder.glob(pattern):
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
