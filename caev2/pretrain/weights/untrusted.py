"""Reads checkpoint files that others wrote, without running anything they hold."""

import argparse
import io
import pickle
import pickletools
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from caev2.errors import CheckpointError, UnsafeFile

_HARMLESS = ("torch.", "collections.OrderedDict", "argparse.Namespace", "_codecs.encode")
_UNREADABLE = (
    pickle.UnpicklingError, safetensors.SafetensorError, struct.error, OSError, RuntimeError, EOFError,
    ValueError, KeyError, IndexError, TypeError, AttributeError,
)  # fmt: skip
"""What torch and safetensors were seen to raise on damaged files of every kind."""


def read_untrusted(path: Path) -> Any:
    """The content of a `.safetensors` file, or of what `torch.save` wrote, on the CPU.

    Pickles are read by torch's restricted unpickler: tensors, containers and numbers, and
    `argparse.Namespace`, which the published checkpoints hold. Nothing else is ever constructed or called.

    Raises:
        UnsafeFile: The file asks for anything else; the message names it.
        CheckpointError: There is no such file, or it is damaged or of another kind.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint file at {path}.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Detected pickle protocol"
            )  # read or refused: that is all there is to say
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as problem:
        foreign = [name for name in _globals_of(path) if not name.startswith(_HARMLESS)]
        if foreign:
            raise UnsafeFile(
                f"{path} asks for {foreign[0]} to be run while it is read. Nothing was run. "
                "A checkpoint needs tensors and plain values only: ask whoever made it for one of that kind."
            ) from None
        if isinstance(problem, pickle.UnpicklingError):  # torch's own message is advice to read it unsafely
            problem = ValueError("it is neither safetensors nor what torch.save writes")
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path} is no checkpoint that can be read ({reason[:200]}). Fetch or copy it again."
        ) from None


def read_metadata(path: Path) -> dict[str, str]:
    """What a `.safetensors` file says of itself; nothing of any other file, nor of a damaged one."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except _UNREADABLE:
        return {}


def _globals_of(path: Path) -> list[str]:
    """The classes and functions that a file's pickles name, found by parsing alone."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [archive.read(member) for member in archive.namelist() if member.endswith(".pkl")]
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, zlib.error):
        pickles = [path.read_bytes()]
    return [name for one in pickles for name in _globals_in(io.BytesIO(one))]


def _globals_in(stream: io.BytesIO) -> Iterator[str]:
    strings: list[str] = []
    while True:
        try:
            for operation, argument, _ in pickletools.genops(stream):
                if operation.name in ("GLOBAL", "INST"):
                    yield str(argument).replace(" ", ".")
                elif operation.name == "STACK_GLOBAL":
                    yield ".".join(strings[-2:])
                elif isinstance(argument, str):
                    strings.append(argument)
        except (ValueError, IndexError, OverflowError):
            return  # the end of the pickles: what follows, if anything, is raw numbers or garbage
