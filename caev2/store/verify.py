"""Checking a whole store: every digest, every gap, every row, and the images behind it."""

from collections.abc import Iterator
from dataclasses import dataclass

from caev2.errors import SourceError, StoreCorrupt
from caev2.progress import Progress, Silent
from caev2.store.hashing import hash_file
from caev2.store.index import read_index
from caev2.store.layout import INDEX, SCRATCH, files_of_unit, row_file, unit_path
from caev2.store.learned import learned_files, read_quality
from caev2.store.manifest import FILE_NAME
from caev2.store.pixels.replay import ViewReplay
from caev2.store.reader import Store
from caev2.store.records import UnitRecord, read_record
from caev2.store.remote.paths import forget
from caev2.store.seal import files_of_store, root_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a verification found."""

    files: int
    """Files compared."""
    rows: int
    """Rows compared with their checksums."""
    problems: tuple[str, ...]
    """One sentence for each file or row that is not what was written."""


def verify_store(store: Store, progress: Progress | None = None) -> VerifyReport:
    """Compare every file of a store with its recorded digest, and every row with its checksum."""
    progress = progress or Silent()
    manifest = store.manifest
    progress.start("verify", manifest.blocks)
    problems, files, rows, records = [], 0, 0, []
    for block in range(manifest.blocks):
        record, problem = _try_record(store, block)
        if record is None:
            problems.append(problem)
        else:
            records.append(record)
            files += len(record.files)
            problems += _check_unit(store, record)
            rows += len(record.images) * manifest.views * len(manifest.spec.targets)
        progress.advance(1)
    problems += _check_tables(store)
    if manifest.state == "sealed":
        problems += _check_seal(store, records)
    problems += _check_foreign(store)
    progress.finish()
    return VerifyReport(files=files + len(files_of_store(manifest)), rows=rows, problems=tuple(problems))


def _try_record(store: Store, block: int) -> tuple[UnitRecord | None, str]:
    try:
        record = read_record(store.path, store.manifest, block)
    except StoreCorrupt as damage:
        return None, str(damage)
    return record, f"{unit_path(block)} is missing: block {block} was never finished or lost"


def _check_unit(store: Store, record: UnitRecord) -> Iterator[str]:
    """Digest of each file of a unit, then each of its rows."""
    sound = True
    for path, (size, digest) in record.files.items():
        try:
            if (now := (store.path / path).stat().st_size) != size:
                yield f"{path} holds {now} bytes, {size} were written"
                sound = False
            elif hash_file(store.path / path) != digest:
                yield f"{path} is damaged: its digest is not the recorded one{forget(store.path / path)}"
                sound = False
        except OSError as problem:
            yield f"{path} cannot be read: {problem.strerror or 'it is missing'}"
            sound = False
    if sound:
        yield from _check_rows(store, record)


def _check_rows(store: Store, record: UnitRecord) -> Iterator[str]:
    numbers = store.manifest.images_of_block(record.block)
    valid = [number for number, facts in zip(numbers, record.images, strict=True) if facts.reason is None]
    for target in store.manifest.spec.targets:
        for view in range(store.views):
            try:
                store.read_stored(target, view, valid)
            except StoreCorrupt as damage:
                yield f"{row_file(store.manifest, target, view, record.block)}: {damage}"


def _check_tables(store: Store) -> Iterator[str]:
    """What each codec has learned."""
    for name, target in store.manifest.spec.targets.items():
        if target.tables is None:
            continue
        try:
            store.tables(name)
            read_quality(store.path, name)
        except StoreCorrupt as damage:
            yield str(damage)


def _check_seal(store: Store, records: list[UnitRecord]) -> Iterator[str]:
    """The index, as a file and against the records; the root digest."""
    try:
        if hash_file(store.path / INDEX) != store.manifest.index_digest:
            yield f"{INDEX} is damaged: its digest is not the recorded one. {_REWRITE}"
            return
        index = read_index(store.path)
        if index["xxh3_128"] != [image.xxh3_128 for record in records for image in record.images]:
            yield f"{INDEX} does not name the images of the unit records"
        if root_digest(store.path, store.manifest, records, index) != store.manifest.root_digest:
            yield f"{FILE_NAME}: the root digest does not hold: a file was changed, or is of another store"
    except OSError as problem:
        where, why = problem.filename or store.path / INDEX, problem.strerror or "it is missing"
        yield f"{where} cannot be read: {why}. {_REWRITE}"
    except StoreCorrupt as damage:
        yield str(damage)


_REWRITE = "Delete what is left of it and run the same `caev2 extract` again: it is written anew."


def _check_foreign(store: Store) -> Iterator[str]:
    """Files that nobody wrote."""
    own = {path for block in range(store.manifest.blocks) for path in files_of_unit(store.manifest, block)}
    own |= {*files_of_store(store.manifest), *learned_files(store.path, store.manifest), FILE_NAME}
    for path in sorted(store.path.rglob("*")):
        relative = path.relative_to(store.path).as_posix()
        if path.is_file() and relative not in own and not relative.startswith(f"{SCRATCH}/"):
            yield f"{relative} does not belong to the store"


def verify_images(store: Store, replay: ViewReplay, progress: Progress | None = None) -> tuple[str, ...]:
    """Replay every view of every valid image and compare its pixels; one sentence for each image that drifted."""
    progress = progress or Silent()
    progress.start("compare pixels", len(store.valid_images) * store.views)
    problems = []
    for image in map(int, store.valid_images):  # each is decoded once, for all its views
        try:
            replay.compare(image)
        except SourceError as drift:
            problems.append(str(drift))
        progress.advance(store.views)
    progress.finish()
    if replay.drifted is not None:
        progress.warn(
            f"Another image decoder than at extraction: {replay.drifted!r} differs by less than half a grey level."
        )
    return tuple(problems)
