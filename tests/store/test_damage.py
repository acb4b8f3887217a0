"""Whatever happens to the files of a store: a number that was not written is never returned, and `verify` says so."""

import itertools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from caev2.errors import Caev2Error
from caev2.store.layout import chunk_path, kinds_of, row_file, small_arrays, unit_path
from caev2.store.manifest import Manifest
from caev2.store.reader import Store
from caev2.store.verify import verify_store
from tests.store.made_up import write_store

FLIPS, CUTS, SWAPS = 2000, 500, 200
SHARE = {"float16": 1.0, "lloyd4 with crops": 0.15, "tars": 0.15}
"""How many of these each kind of store meets; all of them on every kind take most of an hour."""


def numbers_of(path: Path) -> Iterator[tuple[str, object]]:
    """Every number that a store gives out, piece by piece; each piece that is refused is left out."""

    def reading(name: str, read) -> Iterator[tuple[str, object]]:
        try:
            value = read()
        except Caev2Error:
            return
        yield name, value

    try:
        store = Store(path)
    except Caev2Error:
        return
    yield "classes", store.manifest.classes
    yield from reading("keys", lambda: tuple(store.keys))
    yield from reading("labels", lambda: tuple(store.labels))
    yield from reading("valid", lambda: tuple(store.valid_images))
    yield from reading("sources", lambda: tuple(store.source_digests))
    for view, image in itertools.product(range(store.views), range(len(store))):
        yield from reading(f"view {view} {image}", lambda: store.view(view, image))  # noqa: B023
        for field in ("crop_hash", "thumbnail", "valid"):
            yield from reading(
                f"{field} {view} {image}",
                lambda: store.view_value(field, view, image).tobytes(),  # noqa: B023
            )
        if store.manifest.spec.crops is not None:
            yield from reading(f"crop {view} {image}", lambda: store.read_crop(view, image))  # noqa: B023
        for target in store.manifest.spec.targets:
            yield from reading(
                f"row {target} {view} {image}",
                lambda: store.read_rows(target, view, [image]).tobytes(),  # noqa: B023
            )
    store.close()


def finds(path: Path) -> bool:
    """Whether `verify` says that something is not as it was written."""
    try:
        return bool(verify_store(Store(path)).problems)
    except Caev2Error:
        return True


KINDS = {
    "float16": {},
    "lloyd4 with crops": {"codec": "lloyd4", "crops": "jpeg"},
    "tars": {"codec": "int8", "crops": "raw", "layout": "webdataset"},
}


@pytest.fixture(params=KINDS)
def kind_of_store(request) -> str:
    return request.param


@pytest.fixture
def store_path(kind_of_store, tmp_path, images, latents) -> Path:
    return write_store(tmp_path / "store", images, latents, **KINDS[kind_of_store])


@pytest.fixture
def sound(store_path) -> dict[str, object]:
    return dict(numbers_of(store_path))


def check(store_path: Path, sound: dict[str, object], what: str) -> None:
    """Nothing wrong is returned from a damaged store, and the damage is found."""
    wrong = [name for name, value in numbers_of(store_path) if value != sound[name]]
    assert not wrong, f"{what}: {wrong[:3]}"
    assert finds(store_path), f"{what} is not found"


def files_below(store_path: Path) -> list[Path]:
    return sorted(path for path in store_path.rglob("*") if path.is_file())


def test_the_sound_store_gives_every_number(store_path, sound):
    assert sum(name.startswith("row") for name in sound) == 20
    assert not finds(store_path)


@pytest.mark.slow
def test_no_flipped_bit_is_returned_as_data(store_path, sound, kind_of_store):
    draws, files = np.random.default_rng(0), files_below(store_path)
    for number in range(int(FLIPS * SHARE[kind_of_store])):
        path = files[number % len(files)]
        data = path.read_bytes()
        place, bit = int(draws.integers(len(data))), int(draws.integers(8))
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        check(store_path, sound, f"bit {bit} of byte {place} of {path.relative_to(store_path)}")
        path.write_bytes(data)


@pytest.mark.slow
def test_no_truncation_is_returned_as_data(store_path, sound, kind_of_store):
    draws, files = np.random.default_rng(1), files_below(store_path)
    for number in range(int(CUTS * SHARE[kind_of_store])):
        path = files[number % len(files)]
        data = path.read_bytes()
        length = int(draws.integers(len(data)))
        path.write_bytes(data[:length])
        check(store_path, sound, f"{path.relative_to(store_path)} cut to {length} bytes")
        path.write_bytes(data)


def check_pairs(store_path: Path, sound: dict[str, object], files: list[Path], kind: str) -> None:
    """Each of some files in the place of each other one; of very many pairs, some drawn at random."""
    pairs = [pair for pair in itertools.combinations(files, 2) if pair[0].read_bytes() != pair[1].read_bytes()]
    assert len(pairs) > 10
    if len(pairs) > SWAPS:
        pairs = random.Random(2).sample(pairs, SWAPS)
    for one, other in pairs:
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        if kind == "swapped":
            other.write_bytes(first)
        check(store_path, sound, f"{one.relative_to(store_path)} and {other.relative_to(store_path)} {kind}")
        one.write_bytes(first)
        other.write_bytes(second)


@pytest.mark.parametrize("kind", ["swapped", "copied"])
def test_no_shard_in_the_place_of_another_is_returned_as_data(store_path, sound, kind):
    manifest = Store(store_path).manifest
    shards = {
        store_path / row_file(manifest, name, view, block)
        for name, view, block in itertools.product(kinds_of(manifest), range(manifest.views), range(manifest.blocks))
    }
    check_pairs(store_path, sound, sorted(shards), kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["swapped", "copied"])
def test_no_file_in_the_place_of_another_is_returned_as_data(store_path, sound, kind):
    files = [path for path in files_below(store_path) if path.name != "zarr.json"]
    check_pairs(store_path, sound, files, kind)


def files_of_view(manifest: Manifest, view: int, block: int) -> list[str]:
    """The files of one view of one block, always in the same order."""
    shards = sorted({row_file(manifest, kind, view, block) for kind in kinds_of(manifest)})
    return shards + [chunk_path(array, view, block, field) for array, field in small_arrays(manifest).items()]


@pytest.mark.parametrize("kind", ["files", "files and record"])
def test_no_unit_in_the_place_of_another_is_returned_as_data(store_path, sound, kind):
    """All files of a block, and its record: among themselves they agree."""
    manifest = Store(store_path).manifest
    for view in range(manifest.views):
        ours, twins = (files_of_view(manifest, view, block) for block in (0, 1))
        for path, twin in zip(ours, twins, strict=True):
            shutil.copyfile(store_path / twin, store_path / path)
    if kind == "files and record":
        shutil.copyfile(store_path / unit_path(1), store_path / unit_path(0))
    check(store_path, sound, kind)


def test_no_view_in_the_place_of_another_is_returned_as_data(store_path, sound):
    """View 1 of every array is a copy of view 0."""
    manifest = Store(store_path).manifest
    for block in range(manifest.blocks):
        first, second = (files_of_view(manifest, view, block) for view in (0, 1))
        for path, twin in zip(second, first, strict=True):
            shutil.copyfile(store_path / twin, store_path / path)
    check(store_path, sound, "view 1 from view 0")
