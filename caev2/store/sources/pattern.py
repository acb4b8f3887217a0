"""Patterns that stand for several files: `shards/{000000..000012}.tar`, `data/train-*.parquet`."""

import glob
import itertools
from pathlib import Path

from braceexpand import braceexpand

from caev2.errors import SourceError

_MAGIC = "{*?"
_MOST_FILES = 1_000_000


def is_pattern(text: str) -> bool:
    """Whether a path that does not exist as it is may be meant as a pattern."""
    return any(character in text for character in _MAGIC)


def expand(pattern: str) -> tuple[Path, list[str]]:
    """The folder before the first character that has a meaning, and the files below it that a pattern stands for.

    Braces are those of a shell and of webdataset; each path they make must be there. `*` and `?` stand for names that
    are there.

    Raises:
        SourceError: A path that braces make is missing, no name fits, or the braces cannot be read.
    """
    first = min(pattern.index(character) for character in _MAGIC if character in pattern)
    folder, slash, rest = pattern[:first].rpartition("/")
    root = Path(folder + slash)
    names: dict[str, None] = {}
    for one in _expand_braces((rest + pattern[first:]).lstrip("/"), pattern):
        names.update(dict.fromkeys(_find(root, one, pattern)))
    return root, sorted(names)


def _expand_braces(text: str, pattern: str) -> list[str]:
    try:
        # escapes are off: a backslash is a character of a name
        found = list(itertools.islice(braceexpand(text, escape=False), _MOST_FILES + 1))
    except ValueError as problem:
        raise SourceError(
            f"The braces of {pattern} cannot be read: {problem}. Write shards/{{000..012}}.tar."
        ) from None
    if len(found) > _MOST_FILES:
        raise SourceError(f"{pattern} stands for more than {_MOST_FILES:,} files. Look at its braces.")
    return found


def _find(root: Path, name: str, pattern: str) -> list[str]:
    if "*" in name or "?" in name:
        names = glob.glob(name.replace("[", "[[]"), root_dir=root)  # noqa: PTH207 - takes names as they are
        if names:
            return [found for found in names if (root / found).is_file()]
    elif (root / name).is_file():
        return [name]
    raise SourceError(
        f"{pattern} stands for {root / name}, which is not there. Give the pattern of the files that are, or restore "
        "it: its images would be left out."
    )
