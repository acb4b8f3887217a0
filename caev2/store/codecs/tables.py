"""The tables of a codec as plain arrays: their digest, and the check of what was loaded."""

import hashlib

import numpy as np

from caev2.errors import StoreCorrupt
from caev2.store.codecs.codec import Tables


def little_endian(table: np.ndarray) -> np.ndarray:
    """A table as it is stored and hashed."""
    return np.ascontiguousarray(table, dtype=table.dtype.newbyteorder("<")).reshape(table.shape)


def tables_digest(tables: Tables) -> str:
    """One sha256 over the names, types, shapes and bytes of all tables, in the order of their names.

    Every part is preceded by its length, so that no two sets of tables are written alike.
    """
    digest = hashlib.sha256()
    for name in sorted(tables):
        table = little_endian(tables[name])
        for part in (name.encode(), table.dtype.str.encode(), repr(table.shape).encode(), table.tobytes()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def check_tables(codec: str, tables: Tables, wanted: dict[str, tuple[str, int]]) -> None:
    """Compare tables with the names, types and numbers of axes that a codec works with.

    Raises:
        StoreCorrupt: They are another codec's, or damaged.
    """
    found = {name: (table.dtype.newbyteorder("=").name, table.ndim) for name, table in tables.items()}
    if found != wanted:
        raise StoreCorrupt(
            f"The tables are not those of codec {codec!r}: they are {found}, it has {wanted}. Restore the store's "
            "tables from a copy, or extract the store again."
        )
    for name, table in tables.items():
        if table.dtype.kind == "f" and not np.isfinite(table).all():
            raise StoreCorrupt(
                f"Table {name!r} of codec {codec!r} holds a number that is not finite; every stored one is. Restore "
                "the store's tables from a copy, or extract the store again."
            )
