"""Digests of files."""

import contextlib
from pathlib import Path

import xxhash

from caev2.store.disk import flush_file
from caev2.store.remote.paths import StorePath

_PIECE_BYTES = 1 << 22


def hash_file(path: StorePath) -> str:
    """The xxh3-128 of a file, read in pieces."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


class HashedFile:
    """A file written from front to back, hashed on the way."""

    def __init__(self, path: Path):
        self.path = path
        self._file = path.open("wb")
        self._hash = xxhash.xxh3_128()
        self._bytes = 0

    def write(self, *pieces: bytes) -> None:
        """Write what comes next."""
        for data in pieces:
            self._file.write(data)
            self._hash.update(data)
            self._bytes += len(data)

    def finish(self) -> tuple[int, str]:
        """Flush; the file's size and xxh3-128."""
        self._file.flush()
        flush_file(self._file.fileno())
        self._file.close()
        return self._bytes, self._hash.hexdigest()

    def discard(self) -> None:
        """Close the file, and remove it unless it was moved to its place."""
        with contextlib.suppress(OSError):  # what could not be written is no loss
            self._file.close()
        self.path.unlink(missing_ok=True)
