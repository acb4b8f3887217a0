"""A study: a folder of stores over the same images, each named by its folder."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from caev2.ablate.making import StoreMaking
from caev2.errors import ConfigError, StoreMismatch
from caev2.recipe import nearest
from caev2.store.index import read_index
from caev2.store.manifest import FILE_NAME
from caev2.store.reader import Store

_COMPARED = ("key", "label", "xxh3_128", "valid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Stores of a study that are used, opened and compared."""

    path: Path
    stores: Mapping[str, Store]
    """By name, those that are wanted and there."""

    def __getitem__(self, name: str) -> Store:
        return self.stores[name]

    def __contains__(self, name: str) -> bool:
        return name in self.stores


def open_study(path: Path, wanted: Iterable[str]) -> Study:
    """Open the stores that are wanted, as far as they are there; others in the folder are left alone.

    A folder that is not there yet is a study without stores, each of which has a command that makes it.

    Raises:
        ConfigError: The path is no folder, or is a store itself.
        StoreIncomplete: One is not sealed.
        StoreMismatch: Two were not extracted from the same images.
        StoreCorrupt: A manifest or an index is damaged.
    """
    if is_store(path):
        raise ConfigError(f"{path} is a store, and a study is a folder of stores. Give {path.parent}, or move it.")
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file, and a study is a folder of stores. Give a folder.")
    stores = {name: Store(path / name) for name in dict.fromkeys(wanted) if is_store(path / name)}
    for first, other in zip(list(stores.values())[:1] * len(stores), stores.values(), strict=True):
        _refuse_other_images(first, other)
    return Study(path=path, stores=stores)


def is_store(path: Path) -> bool:
    """Whether a folder is a store, sealed or not."""
    return (path / FILE_NAME).is_file()


def stores_of(path: Path) -> list[str]:
    """Names of all stores in a study, sealed or not."""
    return sorted(manifest.parent.name for manifest in path.glob(f"*/{FILE_NAME}"))


def _refuse_other_images(one: Store, other: Store) -> None:
    """The same keys are not enough: files of the same bytes, and the same ones undecodable."""
    ours, theirs = one.manifest, other.manifest
    if one is other or (ours.index_digest == theirs.index_digest and ours.source_digest == theirs.source_digest):
        return
    if ours.images != theirs.images:
        raise _other_images(one, other, f"it has {theirs.images:,} images, and not {ours.images:,}")
    if ours.classes != theirs.classes:
        raise _other_images(one, other, f"its classes are {list(theirs.classes)[:5]}, and not {list(ours.classes)[:5]}")
    mine, its = read_index(one.path, _COMPARED), read_index(other.path, _COMPARED)
    for column in _COMPARED:
        for key, value, another in zip(mine["key"], mine[column], its[column], strict=True):
            if value != another:
                raise _other_images(one, other, f"the {column} of {key!r} is {another!r}, and not {value!r}")


def _other_images(one: Store, other: Store, difference: str) -> StoreMismatch:
    return StoreMismatch(
        f"{other.path} was extracted from other images than {one.path}: {difference}. The stores of a study have the "
        "same images: move one of them to another study."
    )


def command_for(study: Path, name: str, stores: Mapping[str, StoreMaking], images: str = "IMAGES") -> str:
    """What makes a store that is missing; where a grid does not say how, what there is instead."""
    if name in stores:
        return stores[name].command(str(study), name, images)
    there = stores_of(study)
    hint = f"  # the study has no {name!r}: {nearest(name, there)}" if there else ""
    return shlex.join(["caev2", "extract", images, str(study / name)]) + hint
