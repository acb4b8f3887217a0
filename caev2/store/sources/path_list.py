r"""Text files of paths: one image a line, relative to the file's folder.

    # a comment
    cats/one.jpg
    cats/two.jpg<TAB>cat
    "odd\nname.jpg"<TAB>3

A tab separates a label, a number or a name of a class, if lines have one. Blank lines and lines that begin with `#` say
nothing. A line that begins with `"` has its path as a JSON string, for names with tabs, newlines and such.
"""

import json
from pathlib import Path, PurePosixPath

from caev2.errors import SourceError, UnsafeFile
from caev2.store.sources.folder import FileReader
from caev2.store.sources.keys import key_of, refuse_equal_keys
from caev2.store.sources.labels import label_by_folder, label_by_text
from caev2.store.sources.source import ImageSource, Split, cannot_read

LIST_SUFFIXES = (".txt", ".tsv", ".lst")


def open_list(file: Path, split: Split | None) -> ImageSource:
    """The images that a text file names. Without any label their classes are their first folders, as in a folder.

    Raises:
        SourceError: A line cannot be read, a file is missing or named twice, or nothing is named.
        UnsafeFile: A path is absolute or has `..` in it.
    """
    root = file.parent
    found = sorted((key_of(path), path, label) for path, label in _read_lines(file))
    if not found:
        raise SourceError(f"There is no image in {file}: no line names one. Write one path a line.")
    keys = tuple(key for key, _, _ in found)
    refuse_equal_keys(root, keys)
    paths, texts = tuple(path for _, path, _ in found), [label for _, _, label in found]
    labels, classes = label_by_folder(keys) if texts == [None] * len(texts) else label_by_text(texts)
    return ImageSource(
        root=root, keys=keys, paths=paths, labels=labels, classes=classes, reader=FileReader(root, paths), split=split
    )


def _read_lines(file: Path) -> list[tuple[str, str | None]]:
    """Path and label of each line."""
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as problem:
        raise cannot_read(file, problem) from None
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        if not line.strip() or line.startswith("#"):
            continue
        place = f"{file}, line {number}"
        path, label = _parse(line, place)
        found.append((_check_path(file.parent, path, place), label))
    return found


def _parse(line: str, place: str) -> tuple[str, str | None]:
    if not line.startswith('"'):
        path, tab, label = line.partition("\t")
    else:
        try:
            path, end = json.JSONDecoder().raw_decode(line)
        except json.JSONDecodeError as problem:
            raise SourceError(f"{place}: a path that begins with a quote is a JSON string: {problem.msg}.") from None
        nothing, tab, label = line[end:].partition("\t")
        if nothing.strip():
            raise SourceError(f"{place}: {nothing!r} stands behind the path. A tab separates the label.")
    return path, label.strip() or None if tab else None


def _check_path(folder: Path, path: str, place: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise UnsafeFile(
            f"{place}: {path!r} leads out of {folder}. Put the list into a folder above its images, and name them from "
            "there."
        )
    try:
        there = (folder / parts).is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        raise SourceError(f"{place}: there is no file {folder / parts}. Paths are relative to the list's folder.")
    return str(parts)
