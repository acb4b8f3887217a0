"""The store that a run learned from, as far as its manifest tells."""

from dataclasses import dataclass
from pathlib import Path

from caev2.errors import StoreError
from caev2.report.reading.files import Gap
from caev2.store.codecs.quality import Quality
from caev2.store.learned import read_quality
from caev2.store.manifest import Manifest, read_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFolder:
    """What is said of a store; no row of it is read."""

    manifest: Manifest | None
    """None: it was not given, or is damaged, and a gap says which."""
    quality: dict[str, Quality | None]
    """By target; none: nothing was measured."""
    gaps: tuple[Gap, ...]


def read_store(path: Path | None) -> StoreFolder:
    """Read a store's manifest and how faithful its codecs are; what is missing becomes a gap."""
    if path is None:
        gap = Gap(
            what="Not given: no store lies beside the run. Name it with --store.",
            command="caev2 report RUN report.html --store STORE",
        )
        return StoreFolder(manifest=None, quality={}, gaps=(gap,))
    try:
        manifest = read_manifest(path)
    except StoreError:  # its message names folders
        gap = Gap(
            what="There is no store, or its manifest.json is damaged. Restore it from a copy, or extract again.",
            command="caev2 extract IMAGES STORE",
        )
        return StoreFolder(manifest=None, quality={}, gaps=(gap,))
    quality: dict[str, Quality | None] = {}
    gaps: list[Gap] = []
    for name in manifest.spec.targets:
        try:
            quality[name] = read_quality(path, name)
        except (StoreError, OSError):
            quality[name] = None
            gaps.append(Gap(what=f"quality.json of target {name} is damaged.", command="caev2 store verify STORE"))
    return StoreFolder(manifest=manifest, quality=quality, gaps=tuple(gaps))
