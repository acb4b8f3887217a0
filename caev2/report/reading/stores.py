"""The store that a run learned from, as far as its manifest tells."""

from dataclasses import dataclass, field
from pathlib import Path

from caev2.errors import StoreError
from caev2.pretrain.identity import RunIdentity
from caev2.report.reading.files import Gap
from caev2.report.reading.shapes import WRONG
from caev2.store.codecs.quality import Quality
from caev2.store.learned import read_quality
from caev2.store.manifest import Manifest, read_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFolder:
    """What is said of a store; no row of it is read."""

    manifest: Manifest | None
    """Of the run's own store. None: it was not given, or is damaged or another one, and a gap says which."""
    given: Manifest | None = None
    """Of the store that lies there, be it the run's or another one."""
    quality: dict[str, Quality | None] = field(default_factory=dict)
    """By target; none: nothing was measured."""
    gaps: tuple[Gap, ...] = ()


def read_store(path: Path | None, identity: RunIdentity | None) -> StoreFolder:
    """Read the manifest of a run's store and how faithful its codecs are; what is missing becomes a gap.

    Args:
        path: Where the store is; none: nobody knows.
        identity: Of the run, which says which store is its own; none: its file is damaged.
    """
    if identity is not None and not identity.store_fingerprint:
        return _lacking("The run was not trained on a store.")
    if path is None:
        command = "caev2 report RUN report.html --store STORE"
        return _lacking("Not given: no store lies beside the run. Name it with --store.", command)
    try:
        manifest = read_manifest(path)
        fingerprint = manifest.spec.fingerprint()
    except (StoreError, *WRONG):  # its message names folders
        words = "There is no store, or its manifest.json is damaged. Restore it from a copy, or extract again."
        return _lacking(words, "caev2 extract IMAGES STORE")
    if identity is None:
        return _lacking("run.json does not hold, so it cannot be told whether the store is that of the run.")
    if (fingerprint, manifest.root_digest or "") != (identity.store_fingerprint, identity.store_digest):
        return _another(manifest, fingerprint, identity)
    quality, gaps = _read_qualities(path, manifest)
    return StoreFolder(manifest=manifest, given=manifest, quality=quality, gaps=gaps)


def _lacking(what: str, command: str | None = None) -> StoreFolder:
    return StoreFolder(manifest=None, gaps=(Gap(what=what, command=command, section="store"),))


def _another(manifest: Manifest, fingerprint: str, identity: RunIdentity) -> StoreFolder:
    what, pair = "fingerprint", (fingerprint, identity.store_fingerprint)
    if pair[0] == pair[1]:
        what, pair = "root digest", (manifest.root_digest or "none: it is not sealed", identity.store_digest)
    gap = Gap(
        what=f"The store that was found is another one: its {what} is {pair[0]}, that of the run’s store is {pair[1]}. "
        "Name the run’s own with --store.",
        command="caev2 report RUN report.html --store STORE",
        section="store",
    )
    return StoreFolder(manifest=None, given=manifest, gaps=(gap,))


def _read_qualities(path: Path, manifest: Manifest) -> tuple[dict[str, Quality | None], tuple[Gap, ...]]:
    quality: dict[str, Quality | None] = {}
    gaps: list[Gap] = []
    for name in manifest.spec.targets:
        try:
            quality[name] = read_quality(path, name)
        except (StoreError, OSError, *WRONG):
            quality[name] = None
            damaged = f"quality.json of target {name} is damaged."
            gaps.append(Gap(what=damaged, command="caev2 store verify STORE", section="store"))
    return quality, tuple(gaps)
