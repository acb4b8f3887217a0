"""The same rows in another layout, or in another codec."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

from caev2.errors import StoreMismatch
from caev2.progress import Progress, Silent
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.quality import QualityFloor
from caev2.store.index import listing_of, read_index
from caev2.store.manifest import Layout, Manifest, begin_like
from caev2.store.reader import Store
from caev2.store.remote.paths import StorePath
from caev2.store.rewriting.rewrite import Rewritten, origins_of, rewrite


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """What a conversion can be told beside a codec's name."""

    floor: QualityFloor = dataclasses.field(default_factory=QualityFloor)
    """What the codec has to reach on rows that did not calibrate it."""


def convert(
    store: StorePath,
    out: Path,
    *,
    layout: Layout | None = None,
    codec: str | None = None,
    targets: Collection[str] | None = None,
    calibration: StorePath | None = None,
    floor: QualityFloor | None = None,
    progress: Progress | None = None,
) -> Rewritten:
    """Write a store anew; the old one is left as it is.

    Args:
        store: A sealed store.
        out: Where the new one will lie.
        layout: `zarr` or `webdataset`; none: as it is. There and back gives identical bytes.
        codec: How rows are to be stored; none: as they are. Only `float16` rows can be encoded: what another codec
            has lost does not come back.
        targets: Which of its targets are written; none: all.
        calibration: A store whose tables the codec takes; none: it learns from the rows, as at extraction.
        floor: What the codec has to reach on rows that did not calibrate it; what it leaves open is as in
            `quality.FLOORS`.
        progress: Who is told.

    Raises:
        StoreMismatch: Nothing would change, or the rows are encoded already, or it has no such target, or `out` holds
            another store.
        StoreIncomplete: The store is not sealed.
        StoreCorrupt: A row is damaged.
        StoreError: The codec is not faithful enough.
        OutputError: `out` cannot be written.
    """
    opened = Store(store)
    old = opened.manifest
    new = dataclasses.replace(begin_like(old), layout=layout or old.layout)
    if targets is not None:
        new = _with_targets(store, new, targets)
    if codec is not None:
        new = _with_codec(store, new, codec_named(codec).name)
    if new == begin_like(old):
        raise StoreMismatch(f"{store} is so already. Nothing to do; to copy it, copy the folder.")
    if isinstance(store, Path) and out.resolve() == store.resolve():
        raise StoreMismatch(f"{store} cannot be converted in its place. Give another path; remove the old one later.")
    given = None if calibration is None else Store(calibration)
    tables_of = {
        name: opened if target.codec == old.spec.targets[name].codec else given
        for name, target in new.spec.targets.items()
    }
    listing = listing_of(read_index(store))
    return rewrite(out, new, listing, origins_of(opened), tables_of, floor or QualityFloor(), progress or Silent())


def _with_targets(store: StorePath, manifest: Manifest, wanted: Collection[str]) -> Manifest:
    there = manifest.spec.targets
    if not wanted or not set(wanted) <= set(there):
        raise StoreMismatch(f"{store} holds the targets {sorted(there)}, asked for were {sorted(wanted)}.")
    kept = {name: target for name, target in there.items() if name in wanted}
    return dataclasses.replace(manifest, spec=dataclasses.replace(manifest.spec, targets=kept))


def _with_codec(store: StorePath, manifest: Manifest, codec: str) -> Manifest:
    targets = {}
    for name, target in manifest.spec.targets.items():
        if target.codec not in ("float16", codec):
            raise StoreMismatch(
                f"Target {name!r} of {store} is stored in {target.codec}; only float16 can be encoded. Extract again "
                f"with --codec {codec}."
            )
        targets[name] = dataclasses.replace(target, codec=codec)
    return dataclasses.replace(manifest, spec=dataclasses.replace(manifest.spec, targets=targets))
