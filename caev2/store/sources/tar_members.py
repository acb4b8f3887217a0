"""What a tar holds, read from its headers alone; whatever could leave a folder or hide images is refused."""

import bz2
import functools
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caev2.errors import SourceError, UnsafeFile
from caev2.store.sources.at_url import SourcePath, on_disk
from caev2.store.sources.source import cannot_read

_HEADER_BYTES = 512
_AT_ONCE = 1 << 20
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_ZSTD = b"\x28\xb5\x2f\xfd"
# what tarfile and decompressors raise for damaged data
DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar."""

    name: str
    offset: int
    """Where its bytes begin in the tar, once decompressed."""
    size: int


def open_tar(path: SourcePath) -> tuple[io.BufferedIOBase, bool]:
    """A tar open for reading, and whether it is compressed.

    Raises:
        SourceError: It cannot be read, or is compressed in a way that the standard library does not know.
    """
    try:
        return on_disk(path, functools.partial(_open, named=path))
    except OSError as problem:
        raise cannot_read(path, problem) from None


def _open(path: Path, named: SourcePath) -> tuple[io.BufferedIOBase, bool]:
    with path.open("rb") as file:
        begin = file.read(6)
    for magic, opener in _OPENERS.items():
        if begin.startswith(magic):
            return opener(path, "rb"), True
    if begin.startswith(_ZSTD):
        raise SourceError(f"{named} is compressed with zstd, which is not read here. Decompress it: zstd -d.")
    return path.open("rb"), False


def list_members(path: SourcePath, file: io.BufferedIOBase) -> Iterator[Member]:
    """The regular files of a tar in its order; the file's position may be changed between two of them.

    Raises:
        UnsafeFile: A member is no plain file or folder, or its name leads out of the tar.
        SourceError: The tar is damaged, cut short or goes on after its end.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined] - tarfile would keep them all
                _refuse_unsafe(path, info)
                if not info.isdir():
                    yield Member(info.name.removeprefix("./"), info.offset_data, info.size)
            end = tar.offset
        _check_end(path, file, end)
    except DAMAGED as problem:
        raise SourceError(f"{path} is no tar, or a damaged one: {problem}. Restore it.") from None


def _refuse_unsafe(path: SourcePath, info: tarfile.TarInfo) -> None:
    if info.name.startswith("/") or ".." in info.name.split("/"):
        raise UnsafeFile(f"{path}: the member {info.name!r} leads out of the tar. Make the tar anew, with plain names.")
    if info.issparse() or not (info.isreg() or info.isdir()):
        raise UnsafeFile(
            f"{path}: the member {info.name!r} is a link, a device or a sparse file, and not a plain one. Make the tar "
            "anew with the files themselves (tar --dereference --hard-dereference)."
        )


def _check_end(path: SourcePath, file: io.BufferedIOBase, end: int) -> None:
    """A tar ends in zeros: one that just stops was cut, one that goes on was glued to another."""
    file.seek(end)
    first = file.read(_HEADER_BYTES)
    if len(first) < _HEADER_BYTES or any(first):
        raise SourceError(f"{path} is cut short or damaged at byte {end}: the mark of its end is missing. Restore it.")
    while more := file.read(_AT_ONCE):
        if any(more):
            raise SourceError(
                f"{path} goes on after its end at byte {end}: several tars were joined, or it is damaged. Give each "
                "as a file of its own."
            )
