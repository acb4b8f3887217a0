"""`index.parquet`: one line an image, from row number to key, label, file, size and validity."""

import io
from collections.abc import Sequence
from pathlib import Path

from caev2.errors import StoreCorrupt
from caev2.store.disk import write_whole
from caev2.store.layout import INDEX
from caev2.store.records import UnitRecord


def write_index(
    store: Path,
    records: Sequence[UnitRecord],
    keys: Sequence[str],
    paths: Sequence[str],
    labels: Sequence[int],
    scratch: Path,
) -> None:
    """Write the index of a store whose units are all done."""
    import pyarrow as pa
    from pyarrow import parquet

    facts = [image for record in records for image in record.images]
    table = pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "label": pa.array(labels, pa.int32()),
            "container": pa.array([_spell(path) for path in paths], pa.string()),
            "offset": pa.array([0] * len(facts), pa.int64()),
            "height": pa.array([fact.height for fact in facts], pa.int32()),
            "width": pa.array([fact.width for fact in facts], pa.int32()),
            "bytes": pa.array([fact.bytes for fact in facts], pa.int64()),
            "xxh3_128": pa.array([fact.xxh3_128 for fact in facts], pa.string()),
            "valid": pa.array([fact.reason is None for fact in facts], pa.bool_()),
            "reason": pa.array([fact.reason for fact in facts], pa.string()),
        }
    )
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    write_whole(store / INDEX, buffer.getvalue(), scratch)


def _spell(path: str) -> str:
    r"""A path as text; bytes that are no UTF-8 become `\\xNN`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_column(store: Path, name: str) -> list:
    """One column of the index.

    Raises:
        StoreCorrupt: The index is missing or damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_table(store / INDEX, columns=[name]).column(name).to_pylist()
    except (OSError, pa.ArrowException, KeyError) as problem:
        raise StoreCorrupt(
            f"{store / INDEX} is missing or damaged: {problem}. Restore it from a copy, or extract the store again."
        ) from None
