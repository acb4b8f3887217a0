"""From what a source says of its images to labels and names of classes."""

from collections.abc import Sequence

NO_LABEL = -1
_MOST_NUMBERED = 1_000_000  # larger numbers are names: of albums, of people

Labelled = tuple[tuple[int, ...], tuple[str, ...]]
"""A label for each image, and the names of the classes."""


def label_by_folder(keys: Sequence[str]) -> Labelled:
    """Class of each key: its first folder, as in `ImageFolder`; none where any image lies at the top."""
    folders = [key.partition("/")[0] if "/" in key else None for key in keys]
    return label_by_name([None] * len(keys) if None in folders else folders)


def label_by_text(texts: Sequence[str | None]) -> Labelled:
    """Class of each image as a file says it: whole numbers from 0 on, if all are numbers; else names, sorted.

    Args:
        texts: Of each image; none: it has no label.
    """
    said = {text for text in texts if text is not None}
    if all(text.isascii() and text.isdigit() and int(text) < _MOST_NUMBERED for text in said):
        return label_by_number([None if text is None else int(text) for text in texts])
    return label_by_name(texts)


def label_by_number(numbers: Sequence[int | None]) -> Labelled:
    """Classes that have numbers for names: "0", "1", ... up to the largest; negative ones are no label."""
    labels = tuple(NO_LABEL if number is None or number < 0 else number for number in numbers)
    return labels, tuple(map(str, range(max(labels, default=NO_LABEL) + 1)))


def label_by_name(names: Sequence[str | None]) -> Labelled:
    """Classes that have names, in the order of their code points."""
    classes = tuple(sorted({name for name in names if name is not None}))
    place = {name: label for label, name in enumerate(classes)}
    return tuple(NO_LABEL if name is None else place[name] for name in names), classes
