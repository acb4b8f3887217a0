"""How the targets that runs learned from are stored: in which codec, in how many bytes, and what that loses."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from caev2.store.codecs.quality import Quality, quality_of
from caev2.store.learned import read_quality
from caev2.store.reader import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTarget:
    """One target of one store of a study."""

    store: str
    """Its name in the study."""
    digest: str
    """Root digest of the store, as the run.json of every run that learned from it has it."""
    target: str
    codec: str
    images: int
    views: int
    """Stored views of each image; a run may use fewer."""
    row_bytes: int
    """Of all tokens of one view."""
    quality: Quality | None
    """Measured on images that did not calibrate the codec; none: the codec learns nothing."""


def stored_targets(asked: Iterable[tuple[str, str]], stores: Mapping[str, Store]) -> tuple[StoredTarget, ...]:
    """What is known of some targets, each once, in the order in which they are first asked for.

    Args:
        asked: Names of stores and of their targets.
        stores: By name.

    Raises:
        StoreCorrupt: The record of what a codec loses is damaged.
    """
    return tuple(_stored(name, target, stores[name]) for name, target in dict.fromkeys(asked))


def _stored(name: str, target: str, store: Store) -> StoredTarget:
    spec = store.manifest.spec.targets[target]
    return StoredTarget(
        store=name,
        digest=store.manifest.root_digest or "",
        target=target,
        codec=spec.codec,
        images=store.manifest.images,
        views=store.manifest.views,
        row_bytes=spec.row_bytes,
        quality=read_quality(store.path, target),
    )


def stored_target_of(found: Mapping[str, Any]) -> StoredTarget:
    """The target whose fields these are, as `dataclasses.asdict` has them.

    Raises:
        KeyError, TypeError: They are something else.
    """
    quality = found["quality"]
    return StoredTarget(**{**found, "quality": None if quality is None else quality_of(quality)})
