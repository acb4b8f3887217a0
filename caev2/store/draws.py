"""Random draws that are a pure function of a key, for ever.

Only the raw 64-bit words of the Philox generator are used: numpy promises that stream, but not the streams of its
distributions. Floats, integers and permutations are made from the words here, so that a store or a run made today can
be replayed by any later version of numpy or torch.
"""

import hashlib

import numpy as np

_WORDS_AT_ONCE = 64


def stream_key(*parts: str | int) -> int:
    """A 128-bit key from any parts: blake2b over their length-prefixed UTF-8.

    The prefixes keep `("ab", "c")` and `("a", "bc")` apart.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        # keys of images may hold bytes that are no UTF-8: os.fsdecode left them as lone surrogates
        text = str(part).encode("utf-8", "surrogateescape")
        digest.update(len(text).to_bytes(8, "little"))
        digest.update(text)
    return int.from_bytes(digest.digest(), "little")


class Draws:
    """An endless stream of draws.

    Args:
        parts: What the stream is a function of, such as (seed, image key, view).
    """

    def __init__(self, *parts: str | int):
        self._philox = np.random.Philox(key=stream_key(*parts))
        self._buffer: list[int] = []

    def word(self) -> int:
        """The next word, uniform in 0 .. 2⁶⁴−1."""
        if not self._buffer:
            self._buffer = self._philox.random_raw(_WORDS_AT_ONCE).tolist()[::-1]
        return self._buffer.pop()

    def uniform(self, low: float | int = 0.0, high: float | int = 1.0) -> float:
        """A float in [low, high), on a grid of 2⁻⁵³ of the range; `low` may exceed `high`."""
        return low + (high - low) * ((self.word() >> 11) * 2.0**-53)

    def integer(self, stop: int) -> int:
        """An integer in 0 .. stop−1, exactly uniform: words beyond the last full multiple are rejected."""
        limit = 2**64 - 2**64 % stop
        while (word := self.word()) >= limit:
            pass
        return word % stop

    def words(self, count: int) -> np.ndarray:
        """The next `count` words, uint64; what single draws had left in the buffer is skipped."""
        self._buffer = []
        return self._philox.random_raw(count)

    def permutation(self, count: int) -> np.ndarray:
        """A permutation of 0 .. count−1, int64: the order that sorts `count` words."""
        return np.argsort(self.words(count), kind="stable")
