"""A store at a URL, from a local one; and a local one, from a URL.

Units go first, the files of each before its record; what belongs to no unit follows, and the manifest comes last. So a
copy that was interrupted is no store yet, and the same call goes on: units whose record is there are not copied again.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caev2.errors import StoreCorrupt, StoreMismatch
from caev2.progress import Progress, Silent
from caev2.store.disk import Scratch, replace_file, writing
from caev2.store.layout import SCRATCH, unit_path
from caev2.store.learned import learned_files
from caev2.store.manifest import FILE_NAME
from caev2.store.reader import Store
from caev2.store.records import UnitRecord, is_done, read_records
from caev2.store.remote.fetching import Described
from caev2.store.remote.paths import RemotePath, StorePath
from caev2.store.seal import files_of_store
from caev2.store.verify import verify_store
from caev2.store.writer import check_place


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """What copying came to."""

    place: str
    files: int
    bytes: int
    """Of the whole store, the manifest and what belongs to no unit aside."""
    units_copied: int
    """Now; the others were there already."""


def copy_store(store: StorePath, out: StorePath, progress: Progress | None = None) -> CopyResult:
    """Copy a sealed store to a URL, or from a URL to a local folder; files are compared with their digests.

    Args:
        store: A folder, or a URL.
        out: Where to; one of the two is a URL and the other is not.
        progress: Who is told.

    Raises:
        StoreMismatch: Another store lies at `out`, or both are of one kind.
        StoreIncomplete: The store is not sealed.
        StoreCorrupt: A file is not what was written.
        StoreUnreachable: The server does not answer.
        OutputError: `out` cannot be written.
    """
    progress = progress or Silent()
    if isinstance(out, RemotePath) and isinstance(store, Path):
        return _upload(Store(store), out, progress)
    if isinstance(store, RemotePath) and isinstance(out, Path):
        return _download(Store(store), store, out, progress)
    raise StoreMismatch(
        f"{store} and {out} are {'URLs' if isinstance(out, RemotePath) else 'local'} both. This copies to a URL or "
        "from one. Copy a local store with `cp -r`, and from one URL to another by way of a local folder."
    )


def refuse_damaged(store: Store, progress: Progress) -> None:
    """Check that a store may be copied.

    Raises:
        StoreCorrupt: It is damaged; the message names the first problem.
    """
    problems = verify_store(store, progress).problems
    if problems:
        raise StoreCorrupt(
            f"{store.path} is damaged, and a copy would be: {problems[0]}. Run `caev2 store verify {store.path}`."
        )


def _upload(store: Store, out: RemotePath, progress: Progress) -> CopyResult:
    ours = (store.path / FILE_NAME).read_bytes()
    if out.root.read_afresh(FILE_NAME) not in (None, ours):
        raise StoreMismatch(f"Another store lies at {out}: its {FILE_NAME} differs. Give another URL, or remove it.")
    refuse_damaged(store, progress)
    there = out.root.sizes()

    def is_there(record: UnitRecord) -> bool:
        name = unit_path(record.block)
        if any(there.get(path) != size for path, (size, _) in record.files.items()):
            return False
        return out.root.read_afresh(name) == (store.path / name).read_bytes()

    def send(name: str, described: Described | None) -> None:
        del described  # all were compared just now
        out.root.send(Path(store.path) / name, name)

    return _copy(store, str(out), is_there, send, progress)


def _download(store: Store, url: RemotePath, out: Path, progress: Progress) -> CopyResult:
    _claim_folder(store, out)
    with writing(out):
        scratch = Scratch(out / SCRATCH)
        try:

            def bring(name: str, described: Described | None) -> None:
                temporary = scratch.folder / "fetched"
                if name == FILE_NAME:  # the one that all else was compared with
                    temporary.write_bytes((store.path / FILE_NAME).read_bytes())
                else:
                    url.root.fetch(name, temporary, described)
                replace_file(temporary, out / name)

            def is_there(record: UnitRecord) -> bool:
                return is_done(out, store.manifest, record.block)

            result = _copy(store, str(out), is_there, bring, progress)
            (out / _ORIGIN).unlink(missing_ok=True)
        finally:
            scratch.close()
    refuse_damaged(Store(out), progress)
    return result


_ORIGIN = ".copy-of"
"""A file that says of which store an unfinished copy is."""


def _claim_folder(store: Store, out: Path) -> None:
    """Check that a copy may be made, or gone on with, in a folder.

    Raises:
        StoreMismatch: Another store lies there, or a copy of another one was begun.
        OutputError: Something else lies there.
    """
    ours = (store.path / FILE_NAME).read_bytes()
    digest = hashlib.sha256(ours).hexdigest()
    begun = out / _ORIGIN
    if begun.is_file():
        if begun.read_text() != digest:
            raise StoreMismatch(
                f"{out} holds the beginning of a copy of another store. Give another path, or remove it."
            )
        return
    check_place(out)
    if (out / FILE_NAME).exists():
        if (out / FILE_NAME).read_bytes() != ours:
            raise StoreMismatch(f"Another store lies at {out}: its {FILE_NAME} differs. Give another path.")
        return
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        begun.write_text(digest)


def _copy(
    store: Store,
    place: str,
    is_there: Callable[[UnitRecord], bool],
    copy: Callable[[str, Described | None], None],
    progress: Progress,
) -> CopyResult:
    records, copied = read_records(store.path, store.manifest), 0
    progress.start("copy", len(records))
    for record in records:
        if not is_there(record):
            for name, described in record.files.items():
                copy(name, described)
            copy(unit_path(record.block), None)
            copied += 1
        progress.advance(1)
    units = {unit_path(record.block) for record in records}
    try:
        for name in (*files_of_store(store.manifest), *learned_files(store.path, store.manifest)):
            if name not in units:
                copy(name, None)
    except FileNotFoundError as problem:
        raise StoreCorrupt(f"{store.path} lacks a file: {problem}. Copy the store there again.") from None
    copy(FILE_NAME, None)
    progress.finish()
    return CopyResult(
        place=place,
        files=sum(len(record.files) for record in records),
        bytes=sum(size for record in records for size, _ in record.files.values()),
        units_copied=copied,
    )
