"""Writing one view of one block as zarr shards: a file for each target, and one of crops."""

from collections.abc import Mapping
from pathlib import Path

from caev2.store.files.shard import CRC_BYTES, shard_index
from caev2.store.hashing import HashedFile
from caev2.store.layout import kinds_of, row_file
from caev2.store.manifest import Manifest

Finished = dict[str, tuple[Path, tuple[int, str]]]
"""Path in the store → the file that is to be moved there, its size and its xxh3-128."""


class ZarrShards:
    """The shards of one view of one block, filled image by image in order.

    Args:
        scratch: Where unfinished files lie.
        manifest: Of the store.
        view: Which view.
        block: Which block.
    """

    def __init__(self, scratch: Path, manifest: Manifest, view: int, block: int):
        self._manifest, self._view, self._block = manifest, view, block
        self._files = {kind: HashedFile(scratch / f"{kind or 'crops'}-{view}-{block}") for kind in kinds_of(manifest)}

    def add(self, image: int, described: Mapping, pieces: Mapping[str, tuple[bytes, int]]) -> None:
        """Add the next image.

        Args:
            image: Its number.
            described: About its view; kept elsewhere.
            pieces: By kind (a target, or `CROPS`), bytes and their crc32c; where the image has no row, zeros.
        """
        for kind, (data, checksum) in pieces.items():
            self._files[kind].write(data, checksum.to_bytes(CRC_BYTES, "little"))

    def finish(self) -> Finished:
        """Flush the files."""
        images, finished = len(self._manifest.images_of_block(self._block)), {}
        for target, spec in self._manifest.spec.targets.items():
            self._files[target].write(shard_index(images, self._manifest.spec.block_images, spec.row_bytes))
        for kind, file in self._files.items():
            finished[row_file(self._manifest, kind, self._view, self._block)] = file.path, file.finish()
        return finished

    def discard(self) -> None:
        """Remove what was not moved to its place."""
        for file in self._files.values():
            file.discard()
