"""One shard file of a zarr v3 array, written and read without zarr.

zarr's sharding codec with uncompressed inner chunks and an index at the end: chunk *i* is `size` bytes followed by
their crc32c, and lies at *i* · (size + 4); the index is a (offset, size) pair of unsigned 64-bit integers per chunk,
followed by its own crc32c. Every chunk of an image that exists is written, even one that equals the fill value, so
the place of a chunk is known without reading the index. All integers are little-endian.
"""

import crc32c as castagnoli
import numpy as np
from jaxtyping import Int64

CRC_BYTES = 4
_ABSENT = 2**64 - 1


def crc32c(data: bytes | memoryview) -> int:
    """The CRC-32C (Castagnoli) of some bytes."""
    return castagnoli.crc32c(data)


def chunk_offset(index: int, chunk_bytes: int) -> int:
    """Where chunk `index` of a shard begins."""
    return index * (chunk_bytes + CRC_BYTES)


def chunk_offsets(count: int, chunk_bytes: int) -> Int64[np.ndarray, " chunk"]:
    """Where the first `count` chunks of a shard begin."""
    return np.arange(count, dtype=np.int64) * (chunk_bytes + CRC_BYTES)


def seal_chunk(data: bytes) -> bytes:
    """A chunk as it lies in a file: the bytes, then their crc32c."""
    return data + crc32c(data).to_bytes(CRC_BYTES, "little")


def shard_index(present: int, capacity: int, chunk_bytes: int) -> bytes:
    """The index of a shard whose first `present` of `capacity` chunks are written."""
    index = np.full((capacity, 2), _ABSENT, dtype="<u8")
    index[:present, 0] = np.arange(present, dtype=np.uint64) * np.uint64(chunk_bytes + CRC_BYTES)
    index[:present, 1] = chunk_bytes + CRC_BYTES
    return seal_chunk(index.tobytes())


def shard_bytes(present: int, capacity: int, chunk_bytes: int) -> int:
    """The size of such a file."""
    return chunk_offset(present, chunk_bytes) + capacity * 16 + CRC_BYTES
