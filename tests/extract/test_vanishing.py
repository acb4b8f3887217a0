"""Images that vanish or change while they are extracted: what is finished stays, and nobody reads another image."""

import dataclasses
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from caev2.errors import SourceError
from caev2.extract.run import extract
from caev2.store.images import ImageSource, open_images
from caev2.store.pixels.replay import ViewReplay
from caev2.store.reader import Store
from caev2.store.verify import verify_images
from tests.made_up import EXTRACT, PatchMeans
from tests.store.sources.test_every_kind import KINDS, as_folder, write
from tests.store.sources.written import odd_images, write_webdataset

IMAGES = {f"{number:02d}": data for number, data in enumerate(odd_images(24).values())}
UNIT = EXTRACT.block_images


class Meddling(PatchMeans):
    """A teacher during whose batch number `batch` something happens."""

    def __init__(self, batch: int, happens: Callable[[], object]):
        super().__init__()
        self._left, self._happens = batch, happens

    def tokens(self, images, taps):
        self._left -= 1
        if self._left == 0:
            self._happens()
        return super().tokens(images, taps)


def units_done(store: Path) -> int:
    return len(list((store / "units").glob("*.json")))


def files_of(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def many_tars(path: Path) -> Path:
    for number, (name, data) in enumerate(IMAGES.items()):
        write_webdataset(path / f"{number:02d}.tar", {name: data})
    return path


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["folder", "list", "tars"])
def test_a_file_that_vanishes_is_named_and_the_extraction_goes_on_when_it_is_back(kind, workers, tmp_path):
    place = many_tars(tmp_path / "here") if kind == "tars" else write(kind, tmp_path / "here", IMAGES)
    extract(place, tmp_path / "whole", EXTRACT, teacher=PatchMeans())
    source = open_images(place)
    away = source.root / source.paths[-1]
    recipe, store = dataclasses.replace(EXTRACT, workers=workers), tmp_path / "store"
    away.rename(tmp_path / "kept")
    with pytest.raises(SourceError) as refused:
        extract(source, store, recipe, teacher=PatchMeans())
    assert str(refused.value) == (
        f"cannot read {away}: No such file or directory. Restore it and run the same command again: it goes on with what "
        "was finished."
    )
    assert units_done(store) == 2
    (tmp_path / "kept").rename(away)
    result = extract(place, store, recipe, teacher=PatchMeans())
    assert (result.rows_computed, result.failures) == (2 * UNIT, ())
    assert files_of(store) == files_of(tmp_path / "whole")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("folder", "list")])
def test_a_file_of_many_images_that_vanishes_before_it_is_read_is_named(kind, tmp_path):
    source = open_images(write(kind, tmp_path / "here", IMAGES))
    shutil.rmtree(tmp_path / "here")
    with pytest.raises(SourceError, match=r"cannot read .*No such file.* Restore it and run the same command again"):
        extract(source, tmp_path / "store", EXTRACT, teacher=PatchMeans())


@pytest.mark.parametrize("kind", ["folder", "list"])
def test_what_vanishes_between_calibration_and_its_unit_is_named(kind, tmp_path):
    """Of a tar it is not noticed: what is open stays readable."""
    place = write(kind, tmp_path / "here", IMAGES)
    source, store = open_images(place), tmp_path / "store"
    recipe = dataclasses.replace(EXTRACT, codec="int8")
    away = source.root / source.paths[-1]
    # calibration takes the first view of each image, six batches; two units follow, of four each
    with pytest.raises(SourceError, match=f"cannot read {re.escape(str(away))}: No such file or directory. Restore"):
        extract(source, store, recipe, teacher=Meddling(7, lambda: away.rename(tmp_path / "kept")))
    assert units_done(store) == 2
    (tmp_path / "kept").rename(away)
    extract(place, store, recipe, teacher=PatchMeans())
    extract(place, tmp_path / "whole", recipe, teacher=PatchMeans())
    assert files_of(store) == files_of(tmp_path / "whole")


@pytest.mark.parametrize("codec", ["float16", "int8"])
def test_an_image_that_changes_before_it_is_read_is_extracted_as_it_then_is(codec, tmp_path):
    """All views of an image are of one reading, and the store says of which bytes."""
    source = open_images(as_folder(tmp_path / "here", IMAGES))
    changing, other = source.root / source.paths[-1], source.read(0)
    teacher = Meddling(7 if codec == "int8" else 1, lambda: changing.write_bytes(other))
    extract(source, tmp_path / "store", dataclasses.replace(EXTRACT, codec=codec), teacher=teacher)
    store = Store(tmp_path / "store")
    assert store.source_digests[-1] == xxhash.xxh3_128_hexdigest(other)
    assert verify_images(store, ViewReplay(store, source)) == ()


CONTAINERS = ["webdataset", "compressed tar", "parquet file", "arrow"]


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_file_of_many_images_that_changes_before_it_is_read_is_refused(kind, tmp_path):
    """Another image may lie at a place that was listed: what is read must be what was listed."""
    place = write(kind, tmp_path / "here", IMAGES)
    source = open_images(place)
    other = dict(zip(IMAGES, reversed(IMAGES.values()), strict=True))
    replace(write(kind, tmp_path / "other", other), file_of(source))
    with pytest.raises(
        SourceError, match=r"has changed since its images were listed: it has .* and had .* Run the same"
    ):
        extract(source, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    assert units_done(tmp_path / "store") == 0
    assert extract(place, tmp_path / "store", EXTRACT, teacher=PatchMeans()).rows_computed == 48


def replace(new: Path, old: Path) -> None:
    file = new / old.name if new.is_dir() else new
    shutil.copyfile(file, old)
    os.utime(old, ns=(1, 1))  # it may have been written within one tick of the clock


def file_of(source: ImageSource) -> Path:
    assert isinstance(source.root, Path)
    return source.root / source.paths[0]


def test_a_tar_that_changes_between_calibration_and_its_unit_is_refused(tmp_path):
    place = many_tars(tmp_path / "here")
    source, store = open_images(place), tmp_path / "store"
    last, recipe = source.root / source.paths[-1], dataclasses.replace(EXTRACT, codec="int8")

    def rewrite() -> None:
        write_webdataset(last, {"23": IMAGES["00"]})
        os.utime(last, ns=(1, 1))

    with pytest.raises(SourceError, match=r"23\.tar has changed since its images were listed"):
        extract(source, store, recipe, teacher=Meddling(7, rewrite))
    assert units_done(store) == 2
