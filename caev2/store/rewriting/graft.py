"""Growing a store by adding files: the further views, or the further targets, of a part that was extracted beside it.

A part is a sealed store over the same images. Its files are linked into the store (copied where the disk cannot link),
then the records name them, then the store is sealed anew; the part is left as it is. Whatever is interrupted is
finished by the same call: until the new seal the manifest says `building`.
"""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from caev2.errors import StoreCorrupt, StoreIncomplete, StoreMismatch
from caev2.progress import Progress, Silent
from caev2.store.disk import Scratch, flush_file, flush_folder, locked, replace_file, write_whole, writing
from caev2.store.files.zarr_metadata import metadata_files
from caev2.store.hashing import hash_file
from caev2.store.index import read_index
from caev2.store.layout import (
    INDEX,
    SCRATCH,
    chunk_path,
    files_of_unit,
    kinds_of,
    row_file,
    small_arrays,
    unit_path,
)
from caev2.store.learned import learned_files
from caev2.store.manifest import FILE_NAME, Manifest, read_manifest, sealed
from caev2.store.records import UnitRecord, read_record, read_records
from caev2.store.seal import root_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """What a store holds after it has grown."""

    store: Path
    views: int
    targets: tuple[str, ...]
    root_digest: str


def graft(store: Path, part: Path, progress: Progress | None = None) -> Grown:
    """Add the views, or the targets, of a part to a store.

    Args:
        store: A sealed store, or one whose grafting of this very part was interrupted.
        part: A sealed store over the same images: of the same spec, its `first_view` the number of views that the
            store has; or with other targets over the same views.
        progress: Who is told.

    Raises:
        StoreMismatch: The two do not fit; the message names the first thing that differs.
        StoreIncomplete: One of them is not sealed.
        StoreCorrupt: A record is missing or damaged.
        OutputError: The store cannot be written.
    """
    progress = progress or Silent()
    there, other = read_manifest(store), _read_sealed(part)
    whole = _union(store, there, part, other)
    _refuse_other_images(store, part)
    if there.state == "sealed" and there.spec == whole.spec and there.views == whole.views:
        return _grown(store, there)
    with writing(store):
        scratch = Scratch(store / SCRATCH)
        try:
            write_whole(store / FILE_NAME, whole.to_bytes(), scratch.folder)
            done = _join(store, whole, part, other, scratch.folder, progress)
        finally:
            scratch.close()
    return _grown(store, done)


def _grown(store: Path, manifest: Manifest) -> Grown:
    return Grown(
        store=store,
        views=manifest.views,
        targets=tuple(sorted(manifest.spec.targets)),
        root_digest=manifest.root_digest or "",
    )


def _read_sealed(part: Path) -> Manifest:
    manifest = read_manifest(part)
    if manifest.state != "sealed":
        raise StoreIncomplete(
            f"{part} is not sealed: its extraction did not finish. Run the same `caev2 extract` again."
        )
    return manifest


def _union(store: Path, there: Manifest, part: Path, other: Manifest) -> Manifest:
    """The manifest of the grown store while it is put together.

    Raises:
        StoreMismatch: The part does not fit.
        StoreIncomplete: The store is not sealed, and not because grafting this part was interrupted.
    """
    adds_views = other.first_view > there.first_view
    begun = there.state == "building" and there.sealed_as is None
    targets = {**there.spec.targets, **other.spec.targets}
    spec = dataclasses.replace(there.spec, targets=targets)
    views = other.first_view + other.views - there.first_view if adds_views else there.views
    whole = dataclasses.replace(
        there, spec=spec, views=views, state="building", root_digest=None, index_digest=None, failures=()
    )
    if begun and whole == there:
        return whole
    if there.state != "sealed" and not begun:
        raise StoreIncomplete(f"{store} is being mended. Finish that first: run the same `caev2 extract` again.")
    _refuse_unfitting(store, there, part, other, adds_views)
    if there.state != "sealed":
        raise StoreIncomplete(
            f"{store} is not sealed. Finish what was begun there first: an extraction, or the graft of another part."
        )
    return whole


def _refuse_unfitting(store: Path, there: Manifest, part: Path, other: Manifest, adds_views: bool) -> None:
    ours, theirs = there.spec, other.spec
    facts = [
        ("images", there.source_digest, other.source_digest),
        ("layout", there.layout, other.layout),
        ("view settings", ours.views, theirs.views),
        ("images of a block", ours.block_images, theirs.block_images),
        ("teacher batch", ours.teacher_batch, theirs.teacher_batch),
        ("way to keep crops", ours.crops, theirs.crops),
    ]
    if adds_views:
        facts.append(("spec", ours.fingerprint(), theirs.fingerprint()))
        stop = there.first_view + there.views
        if stop != other.first_view + other.views:  # else it has grown by this part already
            facts.append(("first view", stop, other.first_view))
    else:
        if there.layout == "webdataset":
            raise StoreMismatch(
                f"{store} keeps its rows in tars, which hold all targets of a view. Convert both to the layout zarr "
                "(`caev2 store convert --layout zarr`), graft, and convert the result back."
            )
        facts += [("first view", there.first_view, other.first_view), ("number of views", there.views, other.views)]
    for what, one, another in facts:
        if one != another:
            raise StoreMismatch(f"{part} does not fit onto {store}: its {what} is {another}, and not {one}.")
    for name in () if adds_views else sorted(theirs.targets.keys() & ours.targets.keys()):
        if theirs.targets[name] != ours.targets[name]:
            raise StoreMismatch(
                f"Both {store} and {part} have a target called {name!r}. Extract the part with another name: "
                '--set target_prefix="other-".'
            )


def _refuse_other_images(store: Path, part: Path) -> None:
    """The same keys are not enough: files of the same bytes, and the same ones undecodable."""
    ours, theirs = read_index(store), read_index(part)
    for column in ("key", "label", "xxh3_128", "valid"):
        if ours[column] != theirs[column]:
            place = next(
                n for n, (one, other) in enumerate(zip(ours[column], theirs[column], strict=True)) if one != other
            )
            raise StoreMismatch(
                f"{part} was extracted from other images than {store}: the {column} of {ours['key'][place]!r} is "
                f"{theirs[column][place]!r}, and not {ours[column][place]!r}."
            )


def _join(store: Path, whole: Manifest, part: Path, other: Manifest, scratch: Path, progress: Progress) -> Manifest:
    progress.start("graft", whole.blocks)
    for path in learned_files(part, other):
        _bring(part / path, store / path, scratch)
    for block in range(whole.blocks):
        _join_block(store, whole, part, other, block, scratch)
        progress.advance(1)
    for place, data in metadata_files(whole).items():
        write_whole(store / place, data, scratch)
    records = read_records(store, whole)
    digest = root_digest(store, whole, records, read_index(store))
    failures = tuple((key, why) for key, why in _failures(store) if why)
    with locked(store):
        small = max(other.smaller_batches, sum(record.views_at_once is not None for record in records))
        done = sealed(whole, digest, hash_file(store / INDEX), failures, small)
        write_whole(store / FILE_NAME, done.to_bytes(), scratch)
    progress.finish()
    return done


def _failures(store: Path) -> Iterator[tuple[str, str]]:
    index = read_index(store)
    yield from zip(index["key"], index["reason"], strict=True)


def _join_block(store: Path, whole: Manifest, part: Path, other: Manifest, block: int, scratch: Path) -> None:
    """Bring the files of one block, then let its record name them."""
    added = read_record(part, other, block)
    assert added is not None, "a sealed store has all its records"
    ours = _read_either(store, whole, other, block)
    if ours is None:
        return  # done by an earlier call
    moved = _renamed(other, block, other.first_view - whole.first_view)
    files = dict(ours.files)
    for path, described in added.files.items():
        place = moved[path]
        if place in files:
            if files[place] != described:
                raise StoreMismatch(
                    f"{part} was made of other crops than {store}: {path} differs. Extract the part again, with the "
                    "version of Pillow that the store was made with."
                )
            continue
        _bring(part / path, store / place, scratch)
        files[place] = described
    record = UnitRecord(
        block=block,
        fingerprint=whole.spec.fingerprint(),
        source_digest=whole.source_digest,
        files=dict(sorted(files.items())),
        images=ours.images,
        views_at_once=min(filter(None, (ours.views_at_once, added.views_at_once)), default=None),
    )
    assert files.keys() == files_of_unit(whole, block), "store and part make up the grown store"
    write_whole(store / unit_path(block), record.to_bytes(), scratch)


def _read_either(store: Path, whole: Manifest, other: Manifest, block: int) -> UnitRecord | None:
    """The record from before the graft; none if the block has grown already."""
    before = _before(whole, other)
    with contextlib.suppress(StoreCorrupt):
        if read_record(store, whole, block) is not None:
            return None
    return read_record(store, before, block)


def _before(whole: Manifest, other: Manifest) -> Manifest:
    """The manifest that the store had."""
    if other.first_view > whole.first_view:
        return dataclasses.replace(whole, views=other.first_view - whole.first_view)
    kept = {name: target for name, target in whole.spec.targets.items() if name not in other.spec.targets}
    return dataclasses.replace(whole, spec=dataclasses.replace(whole.spec, targets=kept))


def _renamed(other: Manifest, block: int, shift: int) -> dict[str, str]:
    """Where each file of a part's block lies in the store, whose views before it are so many."""
    places, types = {}, small_arrays(other)
    for view in range(other.views):
        grown = view + shift
        for kind in kinds_of(other):
            places[row_file(other, kind, view, block)] = row_file(other, kind, grown, block)
        for array, field in types.items():
            places[chunk_path(array, view, block, field)] = chunk_path(array, grown, block, field)
    return places


def _bring(source: Path, final: Path, scratch: Path) -> None:
    """The file under another name; a link if the disk can, else a copy that is whole before it is there."""
    if final.exists() and final.stat().st_size == source.stat().st_size:
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, final)
        flush_folder(final.parent)
    except OSError:
        temporary = scratch / "copy"
        shutil.copyfile(source, temporary)
        with temporary.open("rb") as file:
            flush_file(file.fileno())
        replace_file(temporary, final)
