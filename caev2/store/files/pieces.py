"""Many pieces of files, read at once."""

import functools
import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from crc32c import crc32c  # itself, not by way of `shard`: a call less for every row
from jaxtyping import UInt8

_THREADS = min(8, os.cpu_count() or 1)
_THREADED_BYTES = 1 << 16  # threads that read smaller pieces wait for one another longer than for memory: with rows of
# 51 kB, one thread reads 78,000 a second and two read 66,000; with rows of 101 kB, 42,000 and 51,000


def pieces_of(rows: UInt8[np.ndarray, "piece byte"]) -> list[memoryview]:
    """The memory of each row of a contiguous array."""
    size, whole = rows.shape[1], rows.reshape(-1).data
    return [whole[begin : begin + size] for begin in range(0, rows.size, size)]


def read_pieces(
    pieces: Sequence[memoryview], descriptors: Sequence[int], offsets: Sequence[int], *, check: bool
) -> list[int]:
    """Fill pieces of memory from files.

    Args:
        pieces: What is filled.
        descriptors: An open file for each piece.
        offsets: Where each piece begins.
        check: Whether checksums are wanted.

    Returns:
        The crc32c of each piece; without `check`, nothing.

    Raises:
        EOFError: A file ends within a piece.
        OSError: A piece cannot be read.
    """
    count = len(pieces)
    if count < 2 or len(pieces[0]) < _THREADED_BYTES or _THREADS == 1:
        return _read_some(pieces, descriptors, offsets, check)
    cuts = [count * part // _THREADS for part in range(_THREADS + 1)]
    first, *others = (slice(*pair) for pair in itertools.pairwise(cuts))
    begun = [_pool().submit(_read_some, pieces[part], descriptors[part], offsets[part], check) for part in others]
    found = _read_some(pieces[first], descriptors[first], offsets[first], check)
    for part in begun:
        found += part.result()
    return found


def _read_some(
    pieces: Sequence[memoryview], descriptors: Sequence[int], offsets: Sequence[int], check: bool
) -> list[int]:
    checksums = []
    for piece, descriptor, offset in zip(pieces, descriptors, offsets, strict=True):
        if os.preadv(descriptor, (piece,), offset) != len(piece):
            _read_rest(piece, descriptor, offset)
        if check:
            checksums.append(crc32c(piece))
    return checksums


def _read_rest(piece: memoryview, descriptor: int, offset: int) -> None:
    """Read a piece again, however many calls it takes: one may give less than it was asked for."""
    done = 0
    while done < len(piece):
        count = os.preadv(descriptor, (piece[done:],), offset + done)
        if count == 0:
            raise EOFError(f"the file ends {len(piece) - done} bytes early")
        done += count


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS - 1, thread_name_prefix="caev2-read")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not follow into a child
