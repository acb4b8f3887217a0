"""Hugging Face datasets on disk: parquet files, or the arrow files of `save_to_disk`, with an image in each row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caev2.errors import SourceError, UnsafeFile
from caev2.store.sources.at_url import ReadAhead, SourcePath
from caev2.store.sources.features import Features, find_features
from caev2.store.sources.folder import read_file
from caev2.store.sources.handles import Handles
from caev2.store.sources.keys import key_of, refuse_equal_keys
from caev2.store.sources.labels import NO_LABEL, Labelled, label_by_name, label_by_number
from caev2.store.sources.listings import listed
from caev2.store.sources.source import ImageSource, Split
from caev2.store.sources.table_files import TableFile, open_table
from caev2.store.sources.unchanged import Stamp, refuse_change, stamp_of

_MOST_OPEN = 4  # each keeps row groups in memory


@dataclass(frozen=True, slots=True, order=True)
class _Row:
    key: str
    file: str
    number: int
    label: int | str | None


def open_tables(root: SourcePath, names: Sequence[str], column: str | None, split: Split | None) -> ImageSource:
    """The images of some parquet or arrow files below a folder, a row each.

    An image's key is the file's path without its suffix, a `/`, and the number of the row in eight digits.

    Args:
        root: The folder.
        names: The files.
        column: Which column has the images; none: it is found.
        split: Which part of a data set this is.

    Raises:
        SourceError: A file is damaged, has no such column, or several columns could be meant.
    """
    names = sorted(names)
    stamps = {name: stamp_of(root / name) for name in names}
    found: list[_Row] = []
    first: Features | None = None
    for name in names:
        features, labels = _list(root / name, column)
        first = first or features
        if features != first:
            raise SourceError(
                f"{root / name} has other columns or classes than {root / names[0]}: {features} and not {first}. Give "
                "the files of one data set alone."
            )
        stem = name.rpartition(".")[0]
        found += [_Row(key_of(f"{stem}/{row:08d}"), name, row, label) for row, label in enumerate(labels)]
    if not found or first is None:
        raise SourceError(f"There is no image in {root}: the {len(names)} tables there have no row.")
    found.sort(key=lambda row: row.key)
    keys = tuple(row.key for row in found)
    refuse_equal_keys(root, keys)
    labels, classes = _label(root, [row.label for row in found], first.classes)
    paths, numbers = tuple(row.file for row in found), tuple(row.number for row in found)
    return ImageSource(
        root=root,
        keys=keys,
        paths=paths,
        offsets=numbers,
        labels=labels,
        classes=classes,
        reader=TableReader(root, paths, numbers, first.image, stamps),
        split=split,
    )


def _list(path: SourcePath, column: str | None) -> tuple[Features, list[int | str | None]]:
    """What a table's columns are, and the label of each row."""

    def find() -> dict[str, Any]:
        table = open_table(path)
        try:
            features = find_features(path, table.schema, column)
            labels = [None] * table.rows if features.label is None else table.column(features.label).to_pylist()
        finally:
            table.close()
        return {"image": features.image, "label": features.label, "classes": features.classes, "labels": labels}

    told = listed(path, f"table {column or ''}", find)
    classes = None if told["classes"] is None else tuple(told["classes"])
    return Features(told["image"], told["label"], classes), told["labels"]


def _label(root: SourcePath, labels: Sequence[int | str | None], classes: tuple[str, ...] | None) -> Labelled:
    """Labels with the schema's names of classes; without those, with what the labels themselves say."""
    if any(isinstance(label, str) for label in labels):
        return label_by_name([None if label is None else str(label) for label in labels])
    numbers = [None if label is None else int(label) for label in labels]
    if classes is None:
        return label_by_number(numbers)
    known = tuple(NO_LABEL if number is None or number < 0 else number for number in numbers)
    if max(known) >= len(classes):
        raise SourceError(f"{root}: a row has the label {max(known)}, and there are {len(classes)} classes.")
    return known, classes


class TableReader:
    """Images in rows of tables.

    Args:
        root: Where the tables lie.
        paths: The table of each image.
        rows: Its row there.
        column: Which column has the images.
        stamps: Of each table, what it was when it was listed.
    """

    def __init__(
        self,
        root: SourcePath,
        paths: Sequence[str],
        rows: Sequence[int],
        column: str,
        stamps: Mapping[str, Stamp | None],
    ):
        self._root, self._paths, self._rows, self._column, self._stamps = root, paths, rows, column, stamps
        self._tables: Handles[TableFile] = Handles(self._open, _MOST_OPEN)
        self._ahead = ReadAhead(root, paths)

    def _open(self, name: str) -> TableFile:
        refuse_change(self._root / name, self._stamps[name])
        opened = open_table(self._root / name)
        self._ahead.opened(name)
        return opened

    def read(self, index: int) -> bytes:
        """The bytes of one image; none where the row has no image.

        Raises:
            SourceError: The table has vanished, has changed since it was listed, or is damaged.
            UnsafeFile: The row has a path in place of bytes, and it leads out of the data set's folder.
        """
        path, row = self._paths[index], self._rows[index]
        table = self._tables.of(path)
        value = table.cell(self._column, row)
        if not isinstance(value, dict):
            return value or b""
        if value.get("bytes") is not None or value.get("path") is None:
            return value.get("bytes") or b""
        return self._read_beside(value["path"], f"{self._root / path}, row {row}")

    def _read_beside(self, path: str, place: str) -> bytes:
        """The file that a row names: one within the folder of the data set, and no other."""
        if not isinstance(self._root, Path):
            raise UnsafeFile(f"{place} has no image but a path, {path!r}. Put the images themselves into the table.")
        file, root = (self._root / path).resolve(), self._root.resolve()
        if not file.is_relative_to(root) or not file.is_file():
            raise UnsafeFile(
                f"{place} has no image but a path, {path!r}, which is no file within {root}. Save the data set with "
                "save_to_disk, which puts the images themselves into its files."
            )
        return read_file(file)
