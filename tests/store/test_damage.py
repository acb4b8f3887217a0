"""Whatever happens to the files of a store: a number that was not written is never returned, and `verify` says so."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from caev2.errors import Caev2Error
from caev2.store.reader import Store
from caev2.store.verify import verify_store

FLIPS, CUTS = 2000, 500


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
def test_no_flipped_bit_is_returned_as_data(store_path, sound):
    random, files = np.random.default_rng(0), files_below(store_path)
    for number in range(FLIPS):
        path = files[number % len(files)]
        data = path.read_bytes()
        place, bit = int(random.integers(len(data))), int(random.integers(8))
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        check(store_path, sound, f"bit {bit} of byte {place} of {path.relative_to(store_path)}")
        path.write_bytes(data)


@pytest.mark.slow
def test_no_truncation_is_returned_as_data(store_path, sound):
    random, files = np.random.default_rng(1), files_below(store_path)
    for number in range(CUTS):
        path = files[number % len(files)]
        data = path.read_bytes()
        length = int(random.integers(len(data)))
        path.write_bytes(data[:length])
        check(store_path, sound, f"{path.relative_to(store_path)} cut to {length} bytes")
        path.write_bytes(data)


@pytest.mark.parametrize("kind", ["swapped", "copied"])
def test_no_file_in_the_place_of_another_is_returned_as_data(store_path, sound, kind):
    """Files of equal size, of which zarr itself could not tell one from the other."""
    files = [path for path in files_below(store_path) if path.name != "zarr.json"]
    pairs = [
        (one, other)
        for one, other in itertools.combinations(files, 2)
        if one.parts[-5:-4] == other.parts[-5:-4] and one.read_bytes() != other.read_bytes()
    ]
    assert len(pairs) > 20
    for one, other in pairs:
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        if kind == "swapped":
            other.write_bytes(first)
        check(store_path, sound, f"{one.relative_to(store_path)} and {other.relative_to(store_path)} {kind}")
        one.write_bytes(first)
        other.write_bytes(second)


def test_no_unit_in_the_place_of_another_is_returned_as_data(store_path, sound):
    """All files of a block and its record, consistently."""
    for kind in ("files", "files and record"):
        other = shutil.copytree(store_path, store_path.with_name(kind))
        for path in files_below(other):
            parts = path.relative_to(other).parts
            if "c" in parts and parts[parts.index("c") + 2] == "0":
                twin = other.joinpath(*parts[: parts.index("c") + 2], "1", *parts[parts.index("c") + 3 :])
                path.write_bytes(twin.read_bytes())
        if kind == "files and record":
            (other / "units/000000.json").write_bytes((other / "units/000001.json").read_bytes())
        check(other, sound, kind)


def test_no_view_in_the_place_of_another_is_returned_as_data(store_path, sound):
    """View 1 of every array is a copy of view 0."""
    for path in files_below(store_path):
        parts = path.relative_to(store_path).parts
        if "c" in parts and parts[parts.index("c") + 1] == "1":
            twin = store_path.joinpath(*parts[: parts.index("c") + 1], "0", *parts[parts.index("c") + 2 :])
            path.write_bytes(twin.read_bytes())
    check(store_path, sound, "view 1 from view 0")
