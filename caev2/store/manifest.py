"""The manifest: what a store holds, who made it, and whether it is whole.

The *spec* is everything that decides the numbers of a row: how views are drawn, which teacher ran at which precision
and tap, the codec, the size of a block. Stores of one spec fit together; its fingerprint says so in one word. The
images and the number of views are not part of it: a store may grow.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from caev2.errors import ConfigError, StoreCorrupt, StoreMismatch
from caev2.recipe import fingerprint, merge, to_mapping
from caev2.store.views import ViewSettings

FORMAT = 1
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

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored row."""
        return self.tokens * self.width * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSpec:
    """Everything that decides the numbers of a row."""

    views: ViewSettings
    targets: dict[str, TargetSpec]
    block_images: int = 512
    teacher_batch: int = 64
    """Views in one batch of the teacher, cut inside a unit; it decides the last bits of the latents."""

    def mapping(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        targets = {name: to_mapping(target) for name, target in self.targets.items()}
        return {
            "views": to_mapping(self.views),
            "targets": targets,
            "block_images": self.block_images,
            "teacher_batch": self.teacher_batch,
        }

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
    source_digest: str
    """Digest of the source's keys, labels and classes."""
    classes: tuple[str, ...]
    """Names of the classes that labels in the index point to."""
    state: Literal["building", "sealed"]
    root_digest: str | None = None
    """Digest over the digests of all files, once sealed."""
    failures: tuple[tuple[str, str], ...] = ()
    """Key and reason of each image that has no valid row, once sealed."""

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
            "fingerprint": self.spec.fingerprint(),
            "spec": self.spec.mapping(),
            "images": self.images,
            "views": self.views,
            "source_digest": self.source_digest,
            "classes": list(self.classes),
            "state": self.state,
            "root_digest": self.root_digest,
            "failures": [list(pair) for pair in self.failures],
        }
        content["digest"] = fingerprint(content)
        return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def read_manifest(store: Path) -> Manifest:
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
    return _manifest_of(content)


_RECOVER = "Restore the file from a copy, or extract the store again."


def _manifest_of(content: dict[str, Any]) -> Manifest:
    spec = content["spec"]
    return Manifest(
        spec=StoreSpec(
            views=merge(ViewSettings(), spec["views"], where="manifest.json"),
            targets={name: TargetSpec(**target) for name, target in spec["targets"].items()},
            block_images=spec["block_images"],
            teacher_batch=spec["teacher_batch"],
        ),
        images=content["images"],
        views=content["views"],
        source_digest=content["source_digest"],
        classes=tuple(content["classes"]),
        state=content["state"],
        root_digest=content["root_digest"],
        failures=tuple((key, reason) for key, reason in content["failures"]),
    )


def refuse_other_spec(store: Path, there: Manifest, wanted: Manifest) -> None:
    """Check that a store can be gone on with.

    Raises:
        StoreMismatch: It holds something else; the message names the first difference with both values.
    """
    pairs = {"images": (there.images, wanted.images), "views": (there.views, wanted.views)}
    old, new = _flatten(there.spec.mapping()), _flatten(wanted.spec.mapping())
    pairs |= {key: (old.get(key), new.get(key)) for key in sorted({*old, *new})}
    pairs["keys and labels of the images"] = (there.source_digest[:12], wanted.source_digest[:12])
    for key, (one, other) in pairs.items():
        if one != other:
            raise StoreMismatch(
                f"{store} is another store: its {key} is {one!r}, this command asks for {other!r}. "
                "Give another path for the new store, or the old settings to go on with this one."
            )


def _flatten(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
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


def sealed(manifest: Manifest, root_digest: str, failures: tuple[tuple[str, str], ...]) -> Manifest:
    """The manifest of the finished store."""
    return dataclasses.replace(manifest, state="sealed", root_digest=root_digest, failures=failures)
