"""One number, or small array of numbers, for each image of a store: filled as it is asked for, block by block."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from caev2.store.layout import FieldType


class Column:
    """The values of all images, of which only some blocks have been read.

    Args:
        images: How many there are.
        block_images: How many make a block.
        field: Type of a value.
        load: Gives the values of a block, in the order of its images; there may be more.
    """

    def __init__(self, images: int, block_images: int, field: FieldType, load: Callable[[int], np.ndarray]):
        self._values = np.zeros((images, *field.shape), dtype=field.dtype)  # takes no memory where nothing is filled
        self._loaded = np.zeros(-(-images // block_images), dtype=bool)
        self._block_images, self._load = block_images, load

    def of(self, images: Int[np.ndarray, " image"]) -> np.ndarray:
        """The values of some images, whose blocks are read unless they have been."""
        blocks = images // self._block_images
        if not self._loaded[blocks].all():
            for block in np.unique(blocks[~self._loaded[blocks]]).tolist():
                self._fill(block)
        return self._values[images]

    def _fill(self, block: int) -> None:
        place = self._values[block * self._block_images : (block + 1) * self._block_images]
        place[:] = self._load(block)[: len(place)]
        self._loaded[block] = True

    @property
    def bytes(self) -> int:
        """Memory of what has been read."""
        return int(self._loaded.sum()) * self._block_images * self._values[:1].nbytes


_KEPT_BYTES = 64 << 20
"""Of all columns, before those of other views than the current one go."""


class Columns:
    """Columns by what they hold and of which view; those of other views make room."""

    def __init__(self):
        self._columns: dict[tuple[str, int], Column] = {}

    def get(self, place: tuple[str, int]) -> Column | None:
        """The column of a kind and view, if there is one."""
        return self._columns.get(place)

    def add(self, place: tuple[str, int], column: Column) -> Column:
        """Keep a column."""
        if sum(one.bytes for one in self._columns.values()) > _KEPT_BYTES:
            self._columns = {kept: one for kept, one in self._columns.items() if kept[1] == place[1]}
        self._columns[place] = column
        return column
