"""The fixed rotation: random signs, then a Hadamard transform; for widths that are no power of two, a Hartley one too.

A rotation spreads what a teacher concentrates in a few channels over all of them, so that each looks like a normal
variable, for which the 16 levels are made. A Hadamard transform with random signs does so as well as a random
orthogonal matrix (its entries are all ±1/√n, the flattest there are) and has two advantages over one drawn from
Philox words and orthogonalised: it needs only additions in a fixed order, so that codes are the same bits on every
machine and for every BLAS, and log₂ n additions a number instead of n multiplications.

A width is 2^k · m with m odd. The m parts of 2^k channels each get the Hadamard transform; across the parts goes the
discrete Hartley transform of length m, cas(2πij/m)/√m, which is orthogonal, symmetric and near flat for every m (for
384 and 768, m is 3). No padding: the number of coded channels is the teacher's width.
"""

import math
from functools import cache

import numpy as np
from jaxtyping import Float, Float32

from caev2.store.draws import Draws


def rotate_columns(columns: Float[np.ndarray, "width token"]) -> Float[np.ndarray, "width token"]:
    """`rotation_matrix(width) @ columns`, faster and to the same bits everywhere.

    Numbers are paired by one bit of their channel's number after the other, from the lowest. While the low half of
    the bits is worked on, they come first in memory: numpy is slow where what it adds are many short lines.
    """
    width, tokens = columns.shape
    parts, binary = _factors(width)
    low = 1 << (binary.bit_length() - 1) // 2
    high = width // low
    signs = _signs(width).astype(columns.dtype)
    mixed = np.empty((low, high, tokens), dtype=columns.dtype)
    np.multiply(columns.reshape(high, low, tokens), signs.reshape(high, low, 1), out=mixed.transpose(1, 0, 2))
    mixed = _add_pairs(mixed, low, high * tokens).reshape(low, high, tokens)
    mixed = np.ascontiguousarray(mixed.transpose(1, 0, 2))
    mixed = _add_pairs(mixed, binary // low, low * tokens)
    return (mixed if parts == 1 else _across_parts(mixed.reshape(parts, -1))).reshape(width, tokens)


def _add_pairs(mixed: Float[np.ndarray, "..."], length: int, line: int) -> Float[np.ndarray, "..."]:
    """Hadamard transforms of so many lines each: of two lines the sum and the difference, further and further apart."""
    apart = 1
    while apart < length:
        pairs = mixed.reshape(-1, 2, apart * line)
        mixed = np.empty_like(pairs)
        np.add(pairs[:, 0], pairs[:, 1], out=mixed[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=mixed[:, 1])
        apart *= 2
    return mixed


def _across_parts(mixed: Float[np.ndarray, "part number"]) -> Float[np.ndarray, "part number"]:
    """The Hartley transform, summed part by part."""
    weights = _hartley(len(mixed)).astype(mixed.dtype)
    total = weights[:, :1] * mixed[0]
    for part in range(1, len(mixed)):
        total += weights[:, part : part + 1] * mixed[part]
    return total


@cache
def rotation_matrix(width: int) -> Float32[np.ndarray, "width width"]:
    """The rotation: line i holds what coded channel i is made of. Read-only."""
    matrix = rotate_columns(np.eye(width)).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def _factors(width: int) -> tuple[int, int]:
    """The odd factor and the power of two."""
    binary = width & -width
    return width // binary, binary


@cache
def _signs(width: int) -> Float[np.ndarray, " width"]:
    """±1/√2^k: the top bit of one Philox word each, and what makes the Hadamard transform orthogonal."""
    words = Draws("rotation", width).words(width) >> np.uint64(63)
    return (1.0 - 2.0 * words) / math.sqrt(_factors(width)[1])


@cache
def _hartley(length: int) -> Float[np.ndarray, "length length"]:
    turns = [2 * math.pi * place / length for place in range(length)]
    cas = np.array([math.cos(turn) + math.sin(turn) for turn in turns]) / math.sqrt(length)
    return cas[np.outer(np.arange(length), np.arange(length)) % length]
