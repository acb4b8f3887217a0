"""The digest of a file."""

from pathlib import Path

import xxhash

_PIECE_BYTES = 1 << 22


def hash_file(path: Path) -> str:
    """The xxh3-128 of a file, read in pieces."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
