"""Parquet and arrow files, read by row: the least that a source of images needs of them, with pyarrow alone."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from caev2.store.sources.at_url import SourcePath, on_disk
from caev2.store.sources.source import cannot_read

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_SUFFIXES = (".parquet", ".arrow")
_CACHED_BYTES = 64 << 20
"""Of decoded row groups that a process keeps of one file: neighbouring rows are read one after another."""

Result = TypeVar("Result")


@runtime_checkable
class TableFile(Protocol):
    """An open file with rows."""

    schema: "pa.Schema"
    rows: int

    def column(self, name: str) -> "pa.ChunkedArray":
        """A whole column, which should be a small one."""
        ...

    def cell(self, name: str, row: int) -> Any:
        """One value."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def open_table(path: SourcePath) -> TableFile:
    """A parquet or an arrow file, open.

    Raises:
        SourceError: It cannot be read.
    """
    table = ParquetTable if path.name.lower().endswith(".parquet") else ArrowTable
    return _told(path, lambda: on_disk(path, lambda file: table(file, path)))


def _told(path: SourcePath, action: Callable[[], Result]) -> Result:
    import pyarrow as pa

    try:
        return action()
    except (OSError, pa.ArrowException, KeyError, EOFError) as problem:
        raise cannot_read(path, " ".join(str(problem).split()).rstrip(".")) from None


class ParquetTable:
    """A parquet file. A value is found by reading its row group, of which the last ones used are kept.

    Args:
        path: Of the file or its copy.
        named: What it is called in messages.
    """

    def __init__(self, path: Path, named: SourcePath):
        from pyarrow import parquet

        self._path, self._file = named, parquet.ParquetFile(path)
        self.schema, self.rows = self._file.schema_arrow, self._file.metadata.num_rows
        self._starts, start = [], 0
        for group in range(self._file.num_row_groups):
            self._starts.append(start)
            start += self._file.metadata.row_group(group).num_rows
        self._groups: OrderedDict[tuple[str, int], pa.ChunkedArray] = OrderedDict()

    def column(self, name: str) -> "pa.ChunkedArray":
        """A whole column."""
        return _told(self._path, lambda: self._file.read([name], use_threads=False).column(name))

    def cell(self, name: str, row: int) -> Any:
        """One value."""
        group = bisect_right(self._starts, row) - 1
        return _told(self._path, lambda: self._group(name, group)[row - self._starts[group]].as_py())

    def _group(self, name: str, group: int) -> "pa.ChunkedArray":
        if (name, group) not in self._groups:
            read = self._file.read_row_group(group, [name], use_threads=False).column(name)
            while self._groups and sum(kept.nbytes for kept in self._groups.values()) + read.nbytes > _CACHED_BYTES:
                self._groups.popitem(last=False)
            self._groups[name, group] = read
        self._groups.move_to_end((name, group))
        return self._groups[name, group]

    def close(self) -> None:
        """Let go of the file."""
        self._groups.clear()
        self._file.close()


class ArrowTable:
    """An arrow file, a stream as `datasets` writes it or one with a footer, mapped into memory.

    Args:
        path: Of the file or its copy.
        named: What it is called in messages.
    """

    def __init__(self, path: Path, named: SourcePath):
        import pyarrow as pa

        self._path, self._map = named, pa.memory_map(str(path))
        try:
            reader = pa.ipc.open_stream(self._map)
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(self._map)
        self._table: pa.Table = reader.read_all()
        self.schema, self.rows = self._table.schema, self._table.num_rows

    def column(self, name: str) -> "pa.ChunkedArray":
        """A whole column."""
        return self._table.column(name)

    def cell(self, name: str, row: int) -> Any:
        """One value."""
        return _told(self._path, lambda: self._table.column(name)[row].as_py())

    def close(self) -> None:
        """Let go of the file."""
        self._table = self._table.slice(0, 0)
        self._map.close()
