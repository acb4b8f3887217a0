"""Several codes in a byte: the first channel in the lowest bits."""

import numpy as np
from jaxtyping import Float32, UInt8


def packed_bytes(channels: int, bits: int) -> int:
    """Bytes that so many codes need; the last may be partly empty."""
    return -(-channels * bits // 8)


def pack_columns(codes: UInt8[np.ndarray, "channel token"], bits: int) -> UInt8[np.ndarray, "byte token"]:
    """Codes of 1, 2, 4 or 8 bits, channel after channel; missing channels of the last byte are zero."""
    per_byte = 8 // bits
    if per_byte == 1:
        return codes
    packed = codes[::per_byte].copy()
    for place in range(1, per_byte):
        layer = codes[place::per_byte]
        packed[: len(layer)] |= layer << np.uint8(place * bits)
    return packed


def unpack(packed: UInt8[np.ndarray, "*batch byte"], bits: int, channels: int) -> UInt8[np.ndarray, "*batch channel"]:
    """The codes in bytes that lie along the last axis."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return codes.reshape(*packed.shape[:-1], packed.shape[-1] * len(shifts))[..., :channels]


def byte_values(levels: Float32[np.ndarray, " level"], bits: int) -> Float32[np.ndarray, "1 256 channel"]:
    """What each byte means: the levels of the codes in it. A byte is then decoded by one lookup."""
    every_byte = np.arange(256, dtype=np.uint8)[:, None]
    return levels[unpack(every_byte, bits, 8 // bits)][None]
