"""The record of a finished unit: which files it owns, their digests, and the facts about its images.

A unit is one block of images with all their views. Its record is written last; a unit without a valid record is done
again.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import xxhash

from caev2.errors import StoreCorrupt
from caev2.recipe import fingerprint
from caev2.store.layout import files_of_unit, unit_path
from caev2.store.manifest import Manifest
from caev2.store.remote.paths import StorePath, forget


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What is known of an image's file when it was read."""

    height: int
    """Pixels after orientation; 0 if undecodable."""
    width: int
    bytes: int
    """Size of the file."""
    xxh3_128: str
    """Digest of the file, hexadecimal."""
    reason: str | None
    """Why the image has no valid row, or None."""


def describe_file(data: bytes, *, height: int = 0, width: int = 0, reason: str | None = None) -> ImageFacts:
    """The facts about an image whose file holds `data`."""
    digest = xxhash.xxh3_128_hexdigest(data)
    return ImageFacts(height=height, width=width, bytes=len(data), xxh3_128=digest, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRecord:
    """Files and images of one unit."""

    block: int
    fingerprint: str
    """Of the spec by which the unit was computed."""
    source_digest: str
    """Of the images it was computed from, as in the manifest."""
    files: dict[str, tuple[int, str]]
    """Path in the store → size in bytes and xxh3-128."""
    images: tuple[ImageFacts, ...]
    views_at_once: int | None = None
    """How many views the teacher computed together, where memory was short and they were fewer than the spec's batch:
    the last bits of the unit's latents may be others than elsewhere."""

    def to_bytes(self) -> bytes:
        """The record's file: columns of facts as JSON, with a digest of itself."""
        facts = {field.name: [getattr(image, field.name) for image in self.images] for field in fields(ImageFacts)}
        content = {
            "block": self.block,
            "fingerprint": self.fingerprint,
            "source_digest": self.source_digest,
            "files": {path: list(described) for path, described in self.files.items()},
            "images": facts,
        }
        if self.views_at_once is not None:
            content["views_at_once"] = self.views_at_once
        content["digest"] = fingerprint(content)
        return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def read_record(store: StorePath, manifest: Manifest, block: int) -> UnitRecord | None:
    """The record of a unit, or None if it has not been written.

    Raises:
        StoreCorrupt: It is there but damaged, or that of another block or store.
    """
    path = store / unit_path(block)
    try:
        record = _parse_record(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise StoreCorrupt(f"{path} cannot be read: {problem.strerror}. Check the disk, or restore the file.") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise StoreCorrupt(f"{path} is damaged. {_RECOVER}{forget(path)}") from None
    _refuse_other_unit(path, record, manifest, block)
    return record


_RECOVER = "Delete it and run the same `caev2 extract` again: its block is computed anew."


def _parse_record(data: bytes) -> UnitRecord:
    content = json.loads(data)
    digest = content.pop("digest")
    if digest != fingerprint(content):
        raise ValueError("digest")
    names = [field.name for field in fields(ImageFacts)]
    rows = zip(*(content["images"][name] for name in names), strict=True)
    return UnitRecord(
        block=content["block"],
        fingerprint=content["fingerprint"],
        source_digest=content["source_digest"],
        files={path: (size, digest) for path, (size, digest) in content["files"].items()},
        images=tuple(ImageFacts(**dict(zip(names, row, strict=True))) for row in rows),
        views_at_once=content.get("views_at_once"),
    )


def _refuse_other_unit(path: StorePath, record: UnitRecord, manifest: Manifest, block: int) -> None:
    """A sound record counts only for the unit, the spec and the images that it was written for."""
    for what, there, wanted in (
        ("block", record.block, block),
        ("spec", record.fingerprint, manifest.spec.fingerprint()),
        ("set of images", record.source_digest, manifest.source_digest),
        ("number of images", len(record.images), len(manifest.images_of_block(block))),
    ):
        if there != wanted:
            raise StoreCorrupt(f"{path} is the record of another {what}: {there}, not {wanted}. {_RECOVER}")
    if record.files.keys() != files_of_unit(manifest, block):
        raise StoreCorrupt(f"{path} names other files than its block has. {_RECOVER}")


def read_records(store: StorePath, manifest: Manifest) -> list[UnitRecord]:
    """The records of all units, in order.

    Raises:
        StoreCorrupt: One is missing or damaged.
    """
    records = []
    for block in range(manifest.blocks):
        record = read_record(store, manifest, block)
        if record is None:
            raise StoreCorrupt(
                f"{store / unit_path(block)} is missing: block {block} was never finished or lost. Run the same "
                "`caev2 extract` again: it is computed anew."
            )
        records.append(record)
    return records


def is_done(store: Path, manifest: Manifest, block: int) -> bool:
    """Whether a unit has a valid record of this very store, and files of the recorded sizes."""
    try:
        record = read_record(store, manifest, block)
    except StoreCorrupt:
        return False
    if record is None:
        return False
    return all(_size(store / path) == size for path, (size, _) in record.files.items())


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
