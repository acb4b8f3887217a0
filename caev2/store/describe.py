"""A store on one screen."""

import dataclasses
from typing import Any

from caev2.store.learned import read_quality
from caev2.store.reader import Store


def describe_store(store: Store) -> dict[str, Any]:
    """Everything worth knowing about a store, as plain values."""
    manifest, spec = store.manifest, store.manifest.spec
    views = spec.views
    return {
        "path": str(store.path),
        "state": manifest.state,
        "images": manifest.images,
        "views": manifest.views,
        "classes": len(manifest.classes),
        "undecodable": len(manifest.failures),
        "failures": [list(failure) for failure in manifest.failures],
        "blocks": manifest.blocks,
        "block_images": spec.block_images,
        "small_batches": manifest.smaller_batches,
        "view_settings": {name: getattr(views, name) for name in views.__dataclass_fields__},
        "targets": {
            name: {
                "tap": target.tap,
                "codec": target.codec,
                "tables": target.tables,
                "quality": _quality(store, name),
                "tokens": target.tokens,
                "width": target.width,
                "row_bytes": target.row_bytes,
                "bytes": target.row_bytes * manifest.images * manifest.views,
                "teacher": target.teacher,
                "from_crops": target.from_crops,
            }
            for name, target in spec.targets.items()
        },
        "fingerprint": spec.fingerprint(),
        "root_digest": manifest.root_digest or manifest.sealed_as,
    }


def _quality(store: Store, target: str) -> dict[str, Any] | None:
    quality = read_quality(store.path, target)
    return None if quality is None else dataclasses.asdict(quality)
