"""Stores over disjoint images, joined into one."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from caev2.errors import StoreMismatch
from caev2.progress import Progress, Silent
from caev2.store.codecs.quality import QualityFloor
from caev2.store.images import NO_LABEL
from caev2.store.index import Listing, digest_listing, listing_of, read_index
from caev2.store.manifest import begin_like, facts_of
from caev2.store.reader import Store
from caev2.store.remote.paths import StorePath
from caev2.store.rewriting.rewrite import Rewritten, origins_of, rewrite

_OWN = ("images", "layout", "keys and labels of the images")  # in which stores that fit together may differ


def merge(stores: Sequence[StorePath], out: Path, progress: Progress | None = None) -> Rewritten:
    """Write one store of the images of several, in the order of their keys; these are left as they are.

    Args:
        stores: Sealed stores of one spec, tables included, with equally many views; their images differ.
        out: Where the new one will lie, in the layout of the first.
        progress: Who is told.

    Raises:
        StoreMismatch: They do not fit together; the message names the first difference. Or `out` holds another store.
        StoreIncomplete: One is not sealed.
        StoreCorrupt: A row is damaged.
        OutputError: `out` cannot be written.
    """
    opened = [Store(store) for store in stores]
    if len(opened) < 2:
        raise StoreMismatch("There is nothing to merge: give at least two stores.")
    first = opened[0]
    for other in opened[1:]:
        _refuse_unfitting(first, other)
    classes = tuple(sorted({name for store in opened for name in store.manifest.classes}))
    lines = [
        (key, path, label, offset, origin.store.path, origin.image, origin)
        for store in opened
        for (key, path, label, offset), origin in zip(_lines(store, classes), origins_of(store), strict=True)
    ]
    lines.sort(key=lambda line: line[0])
    _refuse_equal_keys(lines)
    listing = Listing(
        keys=[line[0] for line in lines],
        paths=[line[1] for line in lines],
        labels=[line[2] for line in lines],
        offsets=[line[3] for line in lines],
    )
    manifest = dataclasses.replace(
        begin_like(first.manifest),
        images=len(lines),
        classes=classes,
        source_digest=digest_listing(listing, classes),
        smaller_batches=sum(store.manifest.smaller_batches for store in opened),
    )
    tables_of = dict.fromkeys(manifest.spec.targets, first)
    origins = [line[-1] for line in lines]
    return rewrite(out, manifest, listing, origins, tables_of, QualityFloor(), progress or Silent())


def _refuse_unfitting(first: Store, other: Store) -> None:
    ours, theirs = facts_of(first.manifest), facts_of(other.manifest)
    for fact in sorted({*ours, *theirs} - set(_OWN)):
        if ours.get(fact) != theirs.get(fact):
            raise StoreMismatch(
                f"{other.path} does not fit {first.path}: its {fact} is {theirs.get(fact)!r}, and not "
                f"{ours.get(fact)!r}. Stores fit if they were extracted with one recipe and one teacher; with codecs "
                "that learn, --calibration gives the second the tables of the first."
            )
    if bool(first.manifest.classes) != bool(other.manifest.classes):
        raise StoreMismatch(f"Of {first.path} and {other.path}, one has classes and the other has none.")


def _lines(store: Store, classes: tuple[str, ...]) -> list[tuple[str, str, int, int]]:
    """Key, path, label and offset of each image; labels count in the classes of all stores."""
    place = {number: classes.index(name) for number, name in enumerate(store.manifest.classes)}
    listing = listing_of(read_index(store.path))
    labels = [place.get(label, NO_LABEL) for label in listing.labels]
    return list(zip(listing.keys, listing.paths, labels, listing.offsets or (), strict=True))


def _refuse_equal_keys(lines: Sequence[tuple]) -> None:
    for one, other in itertools.pairwise(lines):
        if one[0] == other[0]:
            raise StoreMismatch(
                f"Both {one[-3]} and {other[-3]} have an image with the key {one[0]!r}. Stores that are merged hold "
                "different images."
            )
