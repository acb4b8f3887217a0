"""One piece of memory for all tensors of a batch.

Between processes every tensor that has memory of its own costs a file, a connection and a mapping, and one that was not
made in shared memory is copied into it. So a worker makes one piece, fills it, and hands that over.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

_ALIGNMENT_BYTES = 64
"""A cache line; no type needs more."""
_KEPT = 4
"""Pieces that are remembered: the batch at work, the one before it, and two for who keeps them a little longer."""
_FREE = 3
"""References to a piece that no tensor has: the list's, the loop's and that of the call which counts them."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where tensors lie in a piece of memory."""

    places: Mapping[str, tuple[int, tuple[int, ...], str]]
    """By name: first byte, shape, and type as numpy calls it."""
    bytes: int
    """Of the whole piece."""

    @classmethod
    def of(cls, fields: Mapping[str, tuple[tuple[int, ...], str]]) -> "Layout":
        """One tensor after another.

        Args:
            fields: Shape and type of each by name.
        """
        places, end = {}, 0
        for name, (shape, dtype) in fields.items():
            places[name] = end, shape, np.dtype(dtype).name
            end += -(-math.prod(shape) * np.dtype(dtype).itemsize // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        return cls(places, end)

    def new_shared(self) -> UInt8[Tensor, " byte"]:
        """Memory that other processes can see."""
        storage = torch.UntypedStorage._new_shared(self.bytes, device="cpu")
        return torch.empty(0, dtype=torch.uint8).set_(storage)  # pyright: ignore[reportCallIssue, reportArgumentType]

    def tensors(self, memory: UInt8[Tensor, " byte"]) -> dict[str, Tensor]:
        """The tensors in a piece of memory, by name."""
        found = {}
        for name, (begin, shape, dtype) in self.places.items():
            size = math.prod(shape) * np.dtype(dtype).itemsize
            found[name] = memory[begin : begin + size].view(getattr(torch, dtype)).view(shape)
        return found


class Recycled:
    """Memory of this process, used again when nobody holds a tensor in it any more.

    Fresh memory has to be handed out by the system page by page, which takes 5 % of the time of a batch.
    """

    def __init__(self):
        self._pieces: list[np.ndarray] = []

    def __reduce__(self) -> tuple:
        """What travels to another process: nothing."""
        return Recycled, ()

    def take(self, size: int) -> UInt8[Tensor, " byte"]:
        """A piece of so many bytes, with anything in it."""
        for piece in self._pieces:
            if piece.nbytes == size and sys.getrefcount(piece) == _FREE:
                return torch.from_numpy(piece)
        piece = np.empty(size, np.uint8)  # numpy's asks the system for large pages
        self._pieces = [piece, *self._pieces[: _KEPT - 1]]
        return torch.from_numpy(piece)
