"""The files of each unit as its record names them: what they must be, before anything of them is believed."""

from caev2.errors import StoreCorrupt
from caev2.store.layout import unit_path
from caev2.store.manifest import Manifest
from caev2.store.records import read_record
from caev2.store.remote.paths import StorePath

_MOST = 10_000  # a few kB each; one view of ImageNet-1k has 2,503 blocks


class UnitFiles:
    """Size and xxh3-128 of every file, by view and block.

    Args:
        path: Folder of the store.
        manifest: Of the store.
    """

    def __init__(self, path: StorePath, manifest: Manifest):
        self._path, self._manifest = path, manifest
        self._known: dict[tuple[int, int], dict[str, tuple[int, str]]] = {}

    def __getstate__(self) -> dict:
        """What travels to a worker process: nothing that was read."""
        return {**self.__dict__, "_known": {}}

    def of(self, view: int, block: int) -> dict[str, tuple[int, str]]:
        """The files of one view of a block, by path in the store.

        Raises:
            StoreCorrupt: The unit has no sound record.
        """
        if (view, block) not in self._known:
            record = read_record(self._path, self._manifest, block)
            if record is None:
                raise StoreCorrupt(
                    f"{self._path / unit_path(block)} is missing: block {block} was never finished or lost. Run the "
                    "same `caev2 extract` again: it is computed anew."
                )
            while len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            infix = (f"/c/{view}/", f"/data/{view}/", f"tars/{view}/")
            self._known[view, block] = {
                path: described for path, described in record.files.items() if any(part in path for part in infix)
            }
        return self._known[view, block]
