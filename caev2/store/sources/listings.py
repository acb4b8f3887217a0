"""What was found in files at URLs, kept so that a file need not be fetched only to be listed again.

A listing is small and is kept beside the copies, not among them: it does not make room for a copy.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

from caev2.errors import OutputError
from caev2.store.sources.at_url import SourcePath

LISTINGS = "caev2-listings"
_FORMAT = 1  # another one makes listings of before be written anew


def listed(path: SourcePath, kind: str, find: Callable[[], Any]) -> Any:
    """What is found in a file: of one at a URL, what was found before, if it is still the same file.

    Args:
        path: Of the file.
        kind: How it is looked at; another way finds something else.
        find: Looks at it; what it returns must be made of what JSON knows.

    Raises:
        OutputError: The cache cannot be written.
    """
    if isinstance(path, Path):
        return find()
    identity = f"{_FORMAT}\0{kind}\0{path.root.identity_of(path.inside)}"
    name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    file = path.root.settings.folder / LISTINGS / name[:2] / f"{name[2:]}.json"
    known = _read(file)
    if known is None:
        known = find()
        _write(file, json.dumps(known).encode())
    return known


def _read(file: Path) -> Any:
    """What a file says; none if it is not there or damaged."""
    try:
        digest, _, text = file.read_bytes().partition(b"\n")
    except OSError:
        return None
    return json.loads(text) if digest == xxhash.xxh3_128_hexdigest(text).encode() else None


def _write(file: Path, text: bytes) -> None:
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(xxhash.xxh3_128_hexdigest(text).encode() + b"\n" + text)
        os.replace(part, file)  # noqa: PTH105 - several may write the same
    except OSError as problem:
        part.unlink(missing_ok=True)
        raise OutputError(
            f"The cache cannot be written: {file}: {problem.strerror}. Make space, or choose another folder with "
            "CAEV2_CACHE."
        ) from None
