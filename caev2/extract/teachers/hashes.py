"""Digests that files are published by, and whether a file is what they say."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from caev2.errors import TeacherError

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Digest:
    """What a file must come to."""

    kind: Literal["sha256", "git sha1"]
    """The hub names large files by sha256, small ones as git does."""
    value: str
    """In hex; a sha256 may be its beginning alone."""


def digest_of_blob(path: Path) -> Digest | None:
    """The digest by which the hub's cache has filed a file: its client names blobs by what the hub said they hold."""
    name = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", name):
        return Digest("sha256", name)
    return Digest("git sha1", name) if re.fullmatch(r"[0-9a-f]{40}", name) else None


def verify(path: Path, digest: Digest | None) -> None:
    """Compare a file with its digest; without one there is nothing to compare.

    Raises:
        TeacherError: It is another file.
    """
    if digest is None:
        return
    found = hash_file(path, digest.kind)
    if not found.startswith(digest.value):
        raise TeacherError(
            f"{path} is not the published file: its {digest.kind} is {found}, the published one {digest.value}."
        )


def hash_file(path: Path, kind: Literal["sha256", "git sha1"]) -> str:
    """The digest of a whole file, in hex."""
    start: dict[str, Callable[[], Any]] = {"sha256": hashlib.sha256, "git sha1": lambda: _git_blob(path)}
    with path.open("rb") as file:
        return hashlib.file_digest(file, start[kind]).hexdigest()


def _git_blob(path: Path) -> Any:
    """Git hashes a header with the size before the content."""
    return hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
