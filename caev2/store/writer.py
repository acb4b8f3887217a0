"""Writing a store: units whole or not at all, in any order, by any number of writers.

A unit owns its files. They are written below `.tmp/`, flushed, moved to their places, and then the unit's record is
written. Nothing that is written depends on the time, the machine or the writer, so a unit written twice is written
equal, and a store that was interrupted ends in the same bytes as one that was not.
"""

import contextlib
from pathlib import Path

from caev2.errors import OutputError, StoreCorrupt, StoreMismatch
from caev2.store.codecs.codec import Tables
from caev2.store.codecs.quality import Quality
from caev2.store.codecs.tables import tables_digest
from caev2.store.disk import (
    Scratch,
    create_whole,
    entries,
    locked,
    remove_abandoned,
    remove_if_empty,
    write_whole,
    writing,
)
from caev2.store.files.zarr_metadata import metadata_files
from caev2.store.hashing import hash_file
from caev2.store.index import Listing, index_columns, write_index
from caev2.store.layout import (
    INDEX,
    SCRATCH,
    unit_path,
)
from caev2.store.learned import create_learned, has_learned, read_tables
from caev2.store.manifest import (
    FILE_NAME,
    Manifest,
    mending,
    read_manifest,
    refuse_other_spec,
    sealed,
    tables_of,
    with_tables,
)
from caev2.store.records import is_done, read_record, read_records
from caev2.store.seal import root_digest
from caev2.store.unit_writer import UnitJob, UnitWriter


class StoreWriter:
    """One writer of a store; there may be several, on several machines with the same kind of device.

    Args:
        path: Folder of the store, made if it is missing.
        manifest: What is to be written, in state `building`. Targets whose codec learns have no tables yet: they are
            those of the store at the path, if it has some, or those that `calibrate` is given.
        listing: Keys, paths and labels of the images.

    Raises:
        StoreMismatch: A store of another spec, or of other images, lies at the path.
        OutputError: The path cannot be written, or holds something else than a store.
    """

    def __init__(self, path: Path, manifest: Manifest, listing: Listing):
        self.path, self.listing = path, listing
        self._scratch: Scratch | None = None
        self._tables: dict[str, Tables] = {}
        check_place(path)
        if (path / FILE_NAME).exists():
            there = read_manifest(path)
            refuse_other_spec(path, there, with_tables(manifest, tables_of(there)))
            if is_whole(path, there):
                self.manifest = there
                remove_abandoned(path / SCRATCH)  # of a writer that was killed right after the seal
                return
        with writing(path):
            self._scratch = Scratch(path / SCRATCH)
            try:
                self.manifest = self._begin(manifest)
            except BaseException:
                self.close()
                raise

    def _begin(self, wanted: Manifest) -> Manifest:
        """Settle what is written here: the first manifest stays, whoever else comes at the same moment.

        The metadata of the arrays follows it, so that it is always that of the manifest.
        """
        try:
            create_whole(self.path / FILE_NAME, wanted.to_bytes(), self.scratch)
            manifest = wanted
        except FileExistsError:
            manifest = read_manifest(self.path)
            refuse_other_spec(self.path, manifest, with_tables(wanted, tables_of(manifest)))
        if manifest.state == "sealed" or manifest.sealed_as is not None:
            mended = mending(manifest, _pending(self.path, manifest))
            if mended != manifest:
                write_whole(self.path / FILE_NAME, mended.to_bytes(), self.scratch)
            manifest = mended
        for place, data in metadata_files(manifest).items():
            if not _holds(self.path / place, data):
                write_whole(self.path / place, data, self.scratch)
        return manifest

    @property
    def scratch(self) -> Path:
        """This writer's folder of unfinished files."""
        assert self._scratch is not None, "a sealed store is not written to"
        return self._scratch.folder

    def uncalibrated(self) -> tuple[str, ...]:
        """The targets that `calibrate` has to be called for before a unit can be written."""
        for target in self.manifest.spec.uncalibrated:
            if has_learned(self.path, target):  # by another writer, or one that was killed right afterwards
                self._adopt_tables(target)
        return self.manifest.spec.uncalibrated

    def calibrate(self, target: str, tables: Tables, quality: Quality | None) -> None:
        """Keep what a target's codec has learned, unless another writer has kept something before: that stays.

        Args:
            target: Name of the target.
            tables: Of its codec.
            quality: Measured on images that did not calibrate it; none: there were none.
        """
        with writing(self.path):
            create_learned(self.path, target, tables, quality, self.scratch)
        self._adopt_tables(target)

    def _adopt_tables(self, target: str) -> None:
        """Write the digest of the tables that are there into the manifest."""
        digest = tables_digest(read_tables(self.path, target))
        with writing(self.path), locked(self.path):
            there = read_manifest(self.path)  # another writer may have come further
            self.manifest = with_tables(there, {target: digest})
            if self.manifest != there:
                write_whole(self.path / FILE_NAME, self.manifest.to_bytes(), self.scratch)

    def withdraw(self) -> None:
        """Undo the beginning of a store that is not to be: nothing is calibrated, and nothing else was written.

        Not where there are other writers, which may ask for less.
        """
        if self._scratch is None:
            return  # the store is whole
        with writing(self.path), locked(self.path):
            nothing_learned = read_manifest(self.path).spec.uncalibrated == tuple(self.manifest.spec.targets)
            if nothing_learned and self._scratch.is_alone():
                for place in (FILE_NAME, *metadata_files(self.manifest)):
                    (self.path / place).unlink(missing_ok=True)
                for folder in sorted({(self.path / place).parent for place in metadata_files(self.manifest)})[:0:-1]:
                    remove_if_empty(folder)

    def pending(self) -> list[int]:
        """The blocks that have yet to be computed, in the order to do so.

        Where there are other writers, each begins at a place of its own, so that they seldom meet.
        """
        if self._scratch is None:
            return []
        blocks = _pending(self.path, self.manifest)
        first = 0 if not blocks or self._scratch.is_alone() else int(self.scratch.name, 16) % len(blocks)
        return blocks[first:] + blocks[:first]

    def tables(self, target: str) -> Tables:
        """What a target's codec has learned; nothing for one that learns nothing.

        Raises:
            StoreCorrupt: The tables are not those of the manifest.
        """
        if target not in self._tables:
            digest = self.manifest.spec.targets[target].tables
            self._tables[target] = {} if digest is None else read_tables(self.path, target, digest)
        return self._tables[target]

    def is_done(self, block: int) -> bool:
        """Whether a unit has been finished, by this writer or another."""
        return is_done(self.path, self.manifest, block)

    def unit(self, block: int) -> UnitWriter:
        """Begin a unit."""
        with writing(self.path):
            tables = {target: self.tables(target) for target in self.manifest.spec.targets}
            job = UnitJob(self.path, self.scratch, self.manifest, self.listing, tables)
            return UnitWriter(job, block)

    def failures(self) -> tuple[tuple[str, str], ...]:
        """Key and reason of each image without a row, in the units that have a record."""
        failed = []
        for block in range(self.manifest.blocks):
            with contextlib.suppress(StoreCorrupt):  # will be computed anew
                record = read_record(self.path, self.manifest, block)
                facts = zip(self.manifest.images_of_block(block), record.images, strict=True) if record else ()
                failed += [(self.listing.keys[number], fact.reason) for number, fact in facts if fact.reason]
        return tuple(failed)

    def seal(self) -> Manifest:
        """Write the index and declare the store whole; every unit must be done.

        Raises:
            StoreMismatch: Lost units of a sealed store were computed anew, to other bytes. They are given up, so that
                the same command, with the old images again, can still mend the store.
        """
        if self._scratch is None:
            return self.manifest
        records = read_records(self.path, self.manifest)
        with writing(self.path):
            index = index_columns(records, self.listing)
            digest = root_digest(self.path, self.manifest, records, index)
            if self.manifest.sealed_as not in (None, digest):
                for block in self.manifest.lost_blocks:
                    (self.path / unit_path(block)).unlink(missing_ok=True)
                raise StoreMismatch(
                    f"{self.path} was sealed with root digest {self.manifest.sealed_as}; with what was lost made anew "
                    f"it is {digest}: images or teacher are not what they were. Restore them and run the same command "
                    "again, or extract to another path."
                )
            write_index(self.path, index, self.scratch)
            failures = tuple((key, why) for key, why in zip(index["key"], index["reason"], strict=True) if why)
            with locked(self.path):
                small = sum(record.views_at_once is not None for record in records)
                self.manifest = sealed(self.manifest, digest, hash_file(self.path / INDEX), failures, small)
                write_whole(self.path / FILE_NAME, self.manifest.to_bytes(), self.scratch)
        self.close()
        return self.manifest

    def close(self) -> None:
        """Give up unfinished files."""
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None


def _pending(path: Path, manifest: Manifest) -> list[int]:
    return [block for block in range(manifest.blocks) if not is_done(path, manifest, block)]


def is_whole(path: Path, manifest: Manifest) -> bool:
    """Whether a store is sealed and nothing of it is lost.

    A unit whose record was deleted because its files are damaged is computed anew, as messages about damage advise.
    """
    return (
        manifest.state == "sealed"
        and all((path / place).is_file() for place in (INDEX, *metadata_files(manifest)))
        and not _pending(path, manifest)
    )


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def check_place(path: Path) -> None:
    """Check that a store may lie at a path: there is one, or an empty folder, or nothing.

    Raises:
        OutputError: There is something else.
    """
    with writing(path):
        others = {entry.name for entry in entries(path)} - {SCRATCH}
    if others and not (path / FILE_NAME).exists():  # asked afterwards: it comes first, but a list may miss it
        raise OutputError(
            f"{path} is a folder that holds something else than a store ({sorted(others)[0]!r}). "
            "Give the path of a store, or one that does not exist yet."
        )
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file. Give the path of a store, or one that does not exist yet.")
