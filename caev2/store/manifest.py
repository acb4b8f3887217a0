"""The manifest: what a store holds, who made it, and whether it is whole.

The *spec* is everything that decides the numbers of a row: how views are drawn, which teacher ran at which precision
and tap, the codec, the size of a block. Stores of one spec fit together; its fingerprint says so in one word. The
images and the number of views are not part of it: a store may grow.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from caev2.errors import ConfigError, StoreCorrupt, StoreMismatch
from caev2.recipe import fingerprint, merge, to_mapping
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.codec import RowType
from caev2.store.pixels.views import ViewSettings
from caev2.store.remote.paths import StorePath

FORMAT = 1
Layout = Literal["zarr", "webdataset"]
"""In which files rows lie: zarr shards, or tars."""

FILE_NAME = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """One kind of latents in a store: every token of every view, at one tap of one teacher."""

    teacher: dict[str, Any]
    """Name, sha256, sizes, normalisation and precision of the teacher, as `TeacherDescription` has them."""
    tap: str
    """Where in the teacher the latents are taken: `projected`, `post_norm` or `block:i`."""
    tokens: int
    """Class token and patches."""
    width: int
    """Numbers in a latent."""
    codec: str = "float16"
    """How a row is stored."""
    tables: str | None = None
    """Digest of what the codec has learned; none: it learns nothing, or is not calibrated yet."""
    from_crops: bool = False
    """Whether a teacher that takes another size than the views' saw their crops resized, and not their boxes anew."""

    def mapping(self) -> dict[str, Any]:
        """The same as plain JSON values; what most targets are not is left out, so that their fingerprints stay."""
        content = to_mapping(self)
        if not self.from_crops:
            del content["from_crops"]
        return content

    @property
    def row_type(self) -> RowType:
        """What one row is on disk."""
        return codec_named(self.codec).row_type(self.tokens, self.width)

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored row."""
        return self.row_type.row_bytes

    @property
    def awaits_tables(self) -> bool:
        """Whether its codec has to be calibrated before a row can be stored."""
        return self.tables is None and codec_named(self.codec).learns


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSpec:
    """Everything that decides the numbers of a row."""

    views: ViewSettings
    targets: dict[str, TargetSpec]
    block_images: int = 512
    teacher_batch: int = 64
    """Views in one batch of the teacher, cut inside a unit; it decides the last bits of the latents."""
    crops: Literal["jpeg", "raw"] | None = None
    """How crops are kept in the store, and so what the teacher has seen of them; none: they are not kept."""

    def __post_init__(self):
        """Check the names of the targets, which become folders.

        Raises:
            ConfigError: One could not be a folder on every system.
        """
        for name in self.targets:
            check_target_name(name)

    def mapping(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        targets = {name: target.mapping() for name, target in self.targets.items()}
        return {
            "views": to_mapping(self.views),
            "targets": targets,
            "block_images": self.block_images,
            "teacher_batch": self.teacher_batch,
            "crops": self.crops,
        }

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """The targets whose codec has yet to learn its tables."""
        return tuple(name for name, target in self.targets.items() if target.awaits_tables)

    def fingerprint(self) -> str:
        """One word that is equal for equal specs."""
        return fingerprint({"format": FORMAT, **self.mapping()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The content of `manifest.json`."""

    spec: StoreSpec
    images: int
    """Images, the undecodable ones included."""
    views: int
    """Views of each image."""
    layout: Layout = "zarr"
    """In which files the rows lie; the numbers are the same."""
    first_view: int = 0
    """Which view of its image the first one is: not 0 in a part that is to be grafted onto a store of so many."""
    source_digest: str
    """Digest of the source's keys, labels and classes."""
    classes: tuple[str, ...]
    """Names of the classes that labels in the index point to."""
    state: Literal["building", "sealed"]
    root_digest: str | None = None
    """Digest over the digests of all files and the content of the index, once sealed."""
    index_digest: str | None = None
    """The xxh3-128 of the file `index.parquet`, once sealed; no part of the root digest."""
    failures: tuple[tuple[str, str], ...] = ()
    """Key and reason of each image that has no valid row, once sealed."""
    sealed_as: str | None = None
    """While lost parts of a sealed store are made anew: its root digest, which they have to restore."""
    lost_blocks: tuple[int, ...] = ()
    """The blocks that are computed anew then."""
    smaller_batches: int = 0
    """Units that were computed in smaller batches than the spec's, for want of memory, once sealed: the last bits of
    their latents may be others than elsewhere."""

    @property
    def blocks(self) -> int:
        """Number of blocks, the last of which may be short."""
        return -(-self.images // self.spec.block_images)

    def images_of_block(self, block: int) -> range:
        """The images of one block."""
        first = block * self.spec.block_images
        return range(first, min(first + self.spec.block_images, self.images))

    def to_bytes(self) -> bytes:
        """The file: indented JSON that ends in a digest of itself."""
        content = {
            "format": FORMAT,
            "layout": self.layout,
            "fingerprint": self.spec.fingerprint(),
            "spec": self.spec.mapping(),
            "images": self.images,
            "views": self.views,
            "first_view": self.first_view,
            "source_digest": self.source_digest,
            "classes": list(self.classes),
            "state": self.state,
            "root_digest": self.root_digest,
            "index_digest": self.index_digest,
            "failures": [list(pair) for pair in self.failures],
            "sealed_as": self.sealed_as,
            "lost_blocks": list(self.lost_blocks),
        }
        if self.smaller_batches:
            content["smaller_batches"] = self.smaller_batches
        content["digest"] = fingerprint(content)
        return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def read_manifest(store: StorePath) -> Manifest:
    """Read and check `manifest.json`.

    Raises:
        StoreMismatch: There is no store at this path, or it has a later format.
        StoreCorrupt: The manifest is damaged or was edited.
    """
    path = store / FILE_NAME
    try:
        content = json.loads(path.read_bytes())
        digest = content.pop("digest")
    except (FileNotFoundError, NotADirectoryError):
        if (store / "cold.json").is_file():
            raise StoreMismatch(
                f"{store} is a cold copy of a store. Bring the store back: `caev2 store convert {store} PATH`."
            ) from None
        raise StoreMismatch(
            f"There is no store at {store}: it has no {FILE_NAME}. Make one with `caev2 extract`."
        ) from None
    except OSError as problem:
        raise StoreCorrupt(f"{path} cannot be read: {problem.strerror}. {_RECOVER}") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise StoreCorrupt(f"{path} is damaged: it is not the JSON that was written. {_RECOVER}") from None
    if digest != fingerprint(content):
        raise StoreCorrupt(
            f"{path} was changed after it was written: its digest is {fingerprint(content)}, it says {digest}. "
            f"{_RECOVER}"
        )
    if content.get("format") != FORMAT:
        raise StoreMismatch(
            f"{store} has store format {content.get('format')}; this version of caev2 reads format {FORMAT}. Read it "
            "with the version that wrote it, or extract it again."
        )
    try:
        return _manifest_of(content)
    except (KeyError, TypeError, AttributeError, ValueError, ConfigError) as problem:
        raise StoreMismatch(
            f"{path} is not what this version of caev2 writes: {problem}. Read the store with the version that wrote "
            "it, or extract it again."
        ) from None


_RECOVER = "Restore the file from a copy, or extract the store again."


def _layout_of(name: str) -> Layout:
    if name == "zarr" or name == "webdataset":
        return name
    raise ValueError(f"there is no layout called {name!r}")


def _manifest_of(content: dict[str, Any]) -> Manifest:
    spec = content["spec"]
    return Manifest(
        spec=StoreSpec(
            views=merge(ViewSettings(), spec["views"], where="manifest.json"),
            targets={name: TargetSpec(**target) for name, target in spec["targets"].items()},
            block_images=spec["block_images"],
            teacher_batch=spec["teacher_batch"],
            crops=spec["crops"],
        ),
        layout=_layout_of(content["layout"]),
        images=content["images"],
        views=content["views"],
        first_view=content["first_view"],
        source_digest=content["source_digest"],
        classes=tuple(content["classes"]),
        state=content["state"],
        root_digest=content["root_digest"],
        index_digest=content["index_digest"],
        failures=tuple((key, reason) for key, reason in content["failures"]),
        sealed_as=content["sealed_as"],
        lost_blocks=tuple(content["lost_blocks"]),
        smaller_batches=content.get("smaller_batches", 0),
    )


def with_tables(manifest: Manifest, digests: Mapping[str, str | None]) -> Manifest:
    """The manifest with the digests of some targets' tables; where a target has one already, that stays."""
    targets = {
        name: dataclasses.replace(target, tables=digests.get(name)) if target.awaits_tables else target
        for name, target in manifest.spec.targets.items()
    }
    return dataclasses.replace(manifest, spec=dataclasses.replace(manifest.spec, targets=targets))


def tables_of(manifest: Manifest) -> dict[str, str | None]:
    """The digest of each target's tables."""
    return {name: target.tables for name, target in manifest.spec.targets.items()}


def refuse_other_spec(store: Path, there: Manifest, wanted: Manifest) -> None:
    """Check that a store can be gone on with.

    Raises:
        StoreMismatch: It holds something else; the message names the first difference with both values.
    """
    old, new = facts_of(there), facts_of(wanted)
    refuse_other_facts(store, old, {key: new.get(key) for key in sorted({*old, *new}, key=_order_of_facts)})


def refuse_other_facts(store: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Check those facts of a store that are known to be wanted, all or some of `facts_of`.

    Raises:
        StoreMismatch: One differs; the message names the first with both values.
    """
    for key, value in wanted.items():
        if there.get(key) != value:
            raise StoreMismatch(
                f"{store} is another store: its {key} is {there.get(key)!r}, this command asks for {value!r}. "
                "Give another path for the new store, or the old settings to go on with this one."
            )


SOURCE_FACT = "keys and labels of the images"


def facts_of(manifest: Manifest) -> dict[str, Any]:
    """Everything that tells one store from another, by its name in messages."""
    return {
        "layout": manifest.layout,
        "images": manifest.images,
        "views": manifest.views,
        "first_view": manifest.first_view,
        "targets": ", ".join(sorted(manifest.spec.targets)),
        **flatten(manifest.spec.mapping()),
        SOURCE_FACT: manifest.source_digest[:12],
    }


def _order_of_facts(key: str) -> tuple[int, str]:
    """Counts first, then settings; digests, which say least, at the end."""
    first = ("images", "views", "targets")
    return first.index(key) if key in first else 4 if key == SOURCE_FACT else 3, key


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def check_target_name(name: str) -> str:
    """A target's name is a folder's name.

    Raises:
        ConfigError: It could not be one on every system.
    """
    if not name or not all(letter.isalnum() or letter in "-_" for letter in name):
        raise ConfigError(f"A target cannot be called {name!r}: use letters, digits, '-' and '_'.")
    return name


def sealed(
    manifest: Manifest,
    root_digest: str,
    index_digest: str,
    failures: tuple[tuple[str, str], ...],
    smaller_batches: int = 0,
) -> Manifest:
    """The manifest of the finished store; how often it was mended leaves no trace."""
    return dataclasses.replace(
        manifest,
        state="sealed",
        root_digest=root_digest,
        index_digest=index_digest,
        failures=failures,
        sealed_as=None,
        lost_blocks=(),
        smaller_batches=max(manifest.smaller_batches, smaller_batches),  # of a store made of others, the former
    )


def begin_like(manifest: Manifest) -> Manifest:
    """The manifest of a store of the same spec, images and views, of which nothing is written yet."""
    targets = {name: dataclasses.replace(target, tables=None) for name, target in manifest.spec.targets.items()}
    return dataclasses.replace(
        manifest,
        spec=dataclasses.replace(manifest.spec, targets=targets),
        state="building",
        root_digest=None,
        index_digest=None,
        failures=(),
        sealed_as=None,
        lost_blocks=(),
    )


def mending(manifest: Manifest, lost: Iterable[int]) -> Manifest:
    """The manifest of a store that was sealed, while these of its blocks, and those lost before, are made anew."""
    return dataclasses.replace(
        manifest,
        state="building",
        root_digest=None,
        index_digest=None,
        failures=(),
        sealed_as=manifest.sealed_as or manifest.root_digest,
        lost_blocks=tuple(sorted({*manifest.lost_blocks, *lost})),
    )
