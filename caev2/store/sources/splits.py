"""Which files of a data set are for training and which for judging, told by a word in their names."""

import re
from collections.abc import Sequence

from caev2.store.sources.source import Split

# the words of the Hugging Face hub (datasets.data_files), in any case of letters
_WORDS = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_KIND = {word: kind for kind, words in _WORDS.items() for word in words}


def choose_split(names: Sequence[str], split: Split) -> tuple[list[str], Split | None]:
    """The files of one part, and which part that is.

    Names that speak of training and others that speak of validation, or of a test where none speaks of validation, make
    two parts. Otherwise there are no parts, and all files are taken.
    """
    kinds = {name: _kind_of(name) for name in names}
    second = "val" if "val" in kinds.values() else "test"
    if not {"train", second} <= set(kinds.values()):
        return list(names), None
    wanted = "train" if split == "train" else second
    return [name for name in names if kinds[name] == wanted], split


def _kind_of(name: str) -> str | None:
    """What the last telling word of a path says."""
    told = [_KIND[word] for word in re.split(r"[^a-z]+", name.lower()) if word in _KIND]
    return told[-1] if told else None
