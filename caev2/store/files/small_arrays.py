"""The small arrays of a store: a number or a few for each view of each image, compared with recorded digests."""

import numpy as np
import xxhash
from jaxtyping import Int

from caev2.errors import StoreCorrupt, StoreMismatch
from caev2.store.files.column import Column, Columns
from caev2.store.files.shard import CRC_BYTES
from caev2.store.files.unit_files import UnitFiles
from caev2.store.layout import FieldType, chunk_path, small_arrays
from caev2.store.manifest import Manifest
from caev2.store.remote.paths import StorePath, forget, read_file


class SmallArrays:
    """Values by view and image.

    A chunk counts only with the digest that the record of its unit has for it: its own checksum would hold in the
    place of another, too.
    """

    def __init__(self, path: StorePath, manifest: Manifest, files: UnitFiles):
        self._path, self._manifest, self._files = path, manifest, files
        self._types = small_arrays(manifest)
        self._columns = Columns()

    def __getstate__(self) -> dict:
        """What travels to a worker process: nothing that was read."""
        return {**self.__dict__, "_columns": Columns()}

    def values(self, array: str, view: int, images: Int[np.ndarray, " image"]) -> np.ndarray:
        """The values of some images at one view.

        Args:
            array: Path of the array; see `layout.small_arrays`.
            view: Which view.
            images: Numbers of the images, in any order.

        Raises:
            StoreMismatch: There is no such view or image.
            StoreCorrupt: What is there is not what was written.
        """
        count = self._manifest.images
        if len(images) and not (0 <= view < self._manifest.views and images.min() >= 0 and images.max() < count):
            wrong = next((image for image in images.tolist() if not 0 <= image < count), int(images[0]))
            raise StoreMismatch(
                f"{self._path} has no view {view} of image {wrong}: it holds {self._manifest.views} views of {count} "
                "images."
            )
        column = self._columns.get((array, view))
        return (column or self._begin_column(array, view)).of(images)

    def of_block(self, array: str, view: int, block: int) -> np.ndarray:
        """The values of all images of a block at one view."""
        return self.values(array, view, np.asarray(self._manifest.images_of_block(block)))

    def _begin_column(self, array: str, view: int) -> Column:
        field, block_images = self._types[array], self._manifest.spec.block_images

        def load(block: int) -> np.ndarray:
            chunk = chunk_path(array, view, block, field)
            return self._read_chunk(chunk, field, self._files.of(view, block)[chunk])

        return self._columns.add((array, view), Column(self._manifest.images, block_images, field, load))

    def _read_chunk(self, chunk: str, field: FieldType, described: tuple[int, str]) -> np.ndarray:
        try:
            data = read_file(self._path / chunk, described)
        except OSError as problem:
            raise StoreCorrupt(
                f"{self._path / chunk} cannot be read: {problem.strerror or problem}. Restore it, or delete the unit's "
                "record and extract again."
            ) from None
        if xxhash.xxh3_128_hexdigest(data) != described[1]:
            raise StoreCorrupt(
                f"{self._path / chunk} is damaged, or the file of another place: its digest is not the recorded one. "
                f"Run `caev2 store verify {self._path}`, restore the file, or delete the unit's record and extract "
                f"again.{forget(self._path / chunk)}"
            )
        dtype = np.dtype(field.dtype).newbyteorder("<")
        return np.frombuffer(data[:-CRC_BYTES], dtype=dtype).reshape(-1, *field.shape)
