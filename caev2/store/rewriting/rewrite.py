"""A store made of others, without images and without a teacher: in another layout, in another codec, joined.

Rows are read, each compared with its checksum, and written by the writer that extraction uses: units are whole or not
at all, the same call goes on where one was interrupted, and the bytes depend on the content alone.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caev2.errors import StoreError, StoreMismatch
from caev2.progress import Progress
from caev2.store.codecs.calibration import choose_images, fit_codec, refuse_unfaithful
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.quality import FLOORS, QualityFloor
from caev2.store.index import Listing, facts_of_images, read_index
from caev2.store.layout import VIEW_FIELDS
from caev2.store.learned import read_quality
from caev2.store.manifest import Manifest
from caev2.store.reader import Store
from caev2.store.records import ImageFacts
from caev2.store.unit_writer import StoredView
from caev2.store.writer import StoreWriter

_IMAGES_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """A store that was made of others."""

    store: Path
    images: int
    views: int
    layout: str
    root_digest: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the image of some number in the new store comes from."""

    store: Store
    image: int
    facts: ImageFacts


def origins_of(store: Store) -> list[Origin]:
    """All images of one store, in its order."""
    facts = facts_of_images(read_index(store.path))
    return [Origin(store, image, fact) for image, fact in enumerate(facts)]


def rewrite(
    path: Path,
    manifest: Manifest,
    listing: Listing,
    origins: Sequence[Origin],
    tables_of: Mapping[str, Store | None],
    floor: QualityFloor,
    progress: Progress,
) -> Rewritten:
    """Write a store.

    Args:
        path: Where.
        manifest: Of the new store, in state `building`; without digests of tables.
        listing: Keys, paths and labels of its images.
        origins: Where each comes from.
        tables_of: For each target whose codec learns, the store whose tables are used; none: its codec learns from
            the rows, which must be float16.
        floor: What a codec that learns here has to reach.
        progress: Who is told.

    Raises:
        StoreCorrupt: A row is damaged.
        StoreError: A codec is not faithful enough.
        OutputError: The path cannot be written, or something else lies there.
    """
    _refuse_inside({origin.store for origin in origins}, path)
    writer = StoreWriter(path, manifest, listing)
    try:
        try:
            for target in writer.uncalibrated():
                if (tables := tables_of[target]) is None:
                    _learn(writer, target, origins, floor, progress)
                else:
                    _take_tables(writer, target, tables)
        except StoreError:
            writer.withdraw()  # nothing is left of a store that has just begun
            raise
        pending = writer.pending()
        todo = sum(len(manifest.images_of_block(block)) for block in pending)
        progress.start("write rows", manifest.images, manifest.images - todo)
        for block in pending:
            numbers = writer.manifest.images_of_block(block)
            with writer.unit(block) as unit:
                for facts, views in _read_all(writer, origins[numbers.start : numbers.stop]):
                    unit.add_stored(facts, views)
                    progress.advance(1)
                unit.finish()
        progress.finish()
        done = writer.seal()
    finally:
        writer.close()
    return Rewritten(
        store=path, images=done.images, views=done.views, layout=done.layout, root_digest=done.root_digest or ""
    )


def _refuse_inside(stores: Collection[Store], path: Path) -> None:
    """A store inside of another would be a foreign file there.

    Raises:
        StoreMismatch: The new store would lie inside of one that it is made of.
    """
    for store in stores:
        if isinstance(store.path, Path) and store.path.resolve() in path.resolve().parents:
            raise StoreMismatch(f"{path} lies inside of the store {store.path}. Give a path outside of it.")


def _take_tables(writer: StoreWriter, name: str, store: Store) -> None:
    """Give a target the tables that a store has for one like it."""
    twin = store.twin_of(writer.manifest.spec.targets[name])
    writer.calibrate(name, store.tables(twin), read_quality(store.path, twin))


def _learn(writer: StoreWriter, name: str, origins: Sequence[Origin], floor: QualityFloor, progress: Progress) -> None:
    """Let a target's codec learn from the very images and views that an extraction would take."""
    target = writer.manifest.spec.targets[name]
    codec, chosen = codec_named(target.codec), choose_images(writer.listing.keys, writer.manifest.spec.views.seed)
    fitted, judged = (
        np.concatenate([_first_view(origins[image], name) for image in images] or [np.zeros((0, 1, 1), np.float16)])
        for images in (chosen.calibrate, chosen.held_out)
    )
    progress.say(f"calibrating {target.codec} on {len(fitted):,} rows, judging it on {len(judged):,}")
    tables, quality = fit_codec(codec, fitted, judged)
    refuse_unfaithful(f"{target.codec} on {name!r}", floor.over(FLOORS.get(target.codec, QualityFloor())), quality)
    writer.calibrate(name, tables, quality)


def _first_view(origin: Origin, target: str) -> np.ndarray:
    """The row of the first view; none where the image could not be decoded."""
    return origin.store.read_rows(target, 0, [origin.image] if origin.facts.reason is None else [])


def _read_all(writer: StoreWriter, origins: Sequence[Origin]) -> Iterator[tuple[ImageFacts, list[StoredView]]]:
    """What is to be written of each image, in order; read in batches of neighbours in one store."""
    for _, neighbours in itertools.groupby(origins, lambda origin: origin.store):
        some = list(neighbours)
        for first in range(0, len(some), _IMAGES_AT_ONCE):
            yield from _read_batch(writer, some[first : first + _IMAGES_AT_ONCE])


def _read_batch(writer: StoreWriter, origins: Sequence[Origin]) -> Iterator[tuple[ImageFacts, list[StoredView]]]:
    store = origins[0].store
    images = [origin.image for origin in origins if origin.facts.reason is None]
    views = iter(zip(*(_read_view(writer, store, view, images) for view in range(store.views)), strict=True))
    for origin in origins:
        yield origin.facts, [] if origin.facts.reason is not None else list(next(views))


def _read_view(writer: StoreWriter, store: Store, view: int, images: Sequence[int]) -> Iterator[StoredView]:
    """One view of some images as it will lie in the new store."""
    fields = {name: store.view_values(name, view, images) for name in VIEW_FIELDS}
    rows = {name: _rows_of(writer, store, name, view, images) for name in writer.manifest.spec.targets}
    keeps_crops = store.manifest.spec.crops is not None
    for place, image in enumerate(images):
        yield StoredView(
            {name: values[place] for name, values in fields.items()},
            {name: values[place] for name, values in rows.items()},
            store.read_crop(view, image) if keeps_crops else b"",
        )


def _rows_of(writer: StoreWriter, store: Store, target: str, view: int, images: Sequence[int]) -> np.ndarray:
    """Rows as the new store keeps them: as they are, or encoded anew."""
    rows = store.read_stored(target, view, images)
    codec = writer.manifest.spec.targets[target].codec
    if codec == store.manifest.spec.targets[target].codec or not images:
        return rows
    return codec_named(codec).encode(rows, writer.tables(target)).stored()
