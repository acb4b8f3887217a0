"""Pickles that would write a file if anything in them ran."""

import os
import pickle
from pathlib import Path


class Canary:
    """Unpickled without care, creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def call(module: str, name: str, *arguments: str) -> bytes:
    """A pickle that looks `module.name` up, dots and all, and calls it with strings."""
    out = pickle.PROTO + b"\x04" + _text(module) + _text(name) + pickle.STACK_GLOBAL + pickle.MARK
    return out + b"".join(map(_text, arguments)) + pickle.TUPLE + pickle.REDUCE + pickle.STOP


def _text(text: str) -> bytes:
    raw = text.encode()
    return pickle.BINUNICODE + len(raw).to_bytes(4, "little") + raw


def fires(pickled: bytes, canary: Path) -> bool:
    """Whether plain unpickling would have created the file; removes it again."""
    pickle.loads(pickled)
    fired = canary.exists()
    canary.rmdir()
    return fired
