"""Patterns that stand for several files: `shards/{000000..000012}.tar`, `data/train-*.parquet`."""

import glob
import itertools
import re
from pathlib import Path

from caev2.errors import SourceError

_MAGIC = "{*?"
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_MOST_FILES = 1_000_000


def is_pattern(text: str) -> bool:
    """Whether a path that does not exist as it is may be meant as a pattern."""
    return any(character in text for character in _MAGIC)


def is_there(path: Path | str) -> bool:
    """Whether a path exists; one that is too long to be a path does not."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


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
    for one in expand_braces((rest + pattern[first:]).lstrip("/"), pattern):
        names.update(dict.fromkeys(_find(root, one, pattern)))
    return root, sorted(names)


def expand_braces(text: str, pattern: str) -> list[str]:
    """What a text with braces stands for, as a shell would say: `{a,b}` and `{08..11}`, one within another, too."""
    opened = text.find("{")
    if opened < 0:
        return [text]
    closed, commas = _match(text, opened, pattern)
    ends = [opened, *commas, closed]
    alternatives = [text[one + 1 : other] for one, other in itertools.pairwise(ends)]
    if len(alternatives) == 1 and (numbers := _RANGE.fullmatch(alternatives[0])):
        inner = _count(numbers[1], numbers[2], pattern)
    else:
        inner = [found for one in alternatives for found in expand_braces(one, pattern)]
    rests = expand_braces(text[closed + 1 :], pattern)
    if len(inner) * len(rests) > _MOST_FILES:
        raise _too_many(pattern)
    return [text[:opened] + one + rest for one in inner for rest in rests]


def _match(text: str, opened: int, pattern: str) -> tuple[int, list[int]]:
    """Where a brace is closed, and the commas between that are its own."""
    depth, commas = 0, []
    for place in range(opened, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place, commas
        if depth == 1 and text[place] == ",":
            commas.append(place)
    raise SourceError(f"The braces of {pattern} cannot be read: one is not closed. Write shards/{{000..012}}.tar.")


def _count(first: str, last: str, pattern: str) -> list[str]:
    """Numbers from one to another, as wide as the wider one where one of them begins with a zero."""
    low, high = int(first), int(last)
    if high - low >= _MOST_FILES:
        raise _too_many(pattern)
    padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    numbers = [str(number).zfill(width) for number in range(low, high + 1)]
    if not numbers:
        raise SourceError(f"The braces of {pattern} stand for nothing: {first} comes after {last}. Exchange them.")
    return numbers


def _too_many(pattern: str) -> SourceError:
    return SourceError(f"{pattern} stands for more than {_MOST_FILES:,} files. Look at its braces.")


def _find(root: Path, name: str, pattern: str) -> list[str]:
    if "*" in name or "?" in name:
        names = glob.glob(name.replace("[", "[[]"), root_dir=root)  # noqa: PTH207 - takes names as they are
        if names:
            return [found for found in names if (root / found).is_file()]
    elif is_there(root / name) and (root / name).is_file():
        return [name]
    raise SourceError(
        f"{pattern} stands for {root / name}, which is not there. Give the pattern of the files that are, or restore "
        "it: its images would be left out."
    )
