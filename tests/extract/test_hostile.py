"""Folders as people have them: what is an image is extracted, what is not is named, and nothing hangs or crashes."""

import dataclasses
import io
import re
import warnings
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from caev2.errors import SourceError
from caev2.extract.run import extract
from caev2.store.images import open_images
from caev2.store.pixels.replay import ViewReplay
from caev2.store.reader import Store
from caev2.store.verify import verify_images, verify_store
from tests.extract.hostile_files import KNOWN_BAD, HostileFolder, write_hostile_folder
from tests.made_up import EXTRACT, PatchMeans

RECIPE = dataclasses.replace(EXTRACT, view_count=1, block_images=64, teacher_batch=16, workers=2)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> HostileFolder:
    return write_hostile_folder(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def extracted(hostile, tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("store") / "store"
    extract(hostile.root, store, dataclasses.replace(RECIPE, max_failed=0.6), teacher=PatchMeans())
    return store


def pillow_reads(path: Path) -> bool:
    """Whether Pillow itself gets pixels out of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(path.read_bytes()))
            image.load()
            ImageOps.exif_transpose(image).convert("RGB")
        except Exception:  # noqa: BLE001 - whatever it is, there are no pixels
            return False
    return image.mode not in ("I", "F")


def test_there_are_a_thousand_of_each(hostile):
    assert len(hostile.good) == len(hostile.bad) + len(hostile.doubtful) == 1000
    assert set(hostile.bad.values()) == set(KNOWN_BAD)
    assert len(open_images(hostile.root)) == 2000


def test_every_image_is_extracted_and_nothing_else_is(hostile, extracted):
    store, source = Store(extracted), open_images(hostile.root)
    valid = {store.keys[image] for image in store.valid_images}
    assert hostile.good <= valid
    assert not valid & set(hostile.bad)
    path_of = dict(zip(source.keys, source.paths, strict=True))
    readable = {key for key in hostile.doubtful if pillow_reads(hostile.root / path_of[key])}
    assert valid & hostile.doubtful == readable
    assert 100 < len(readable) < 900


def test_every_other_file_is_named_with_its_reason(hostile, extracted):
    store = Store(extracted)
    reasons = dict(store.manifest.failures)
    assert set(reasons) == set(store.keys) - {store.keys[image] for image in store.valid_images}
    for key, kind in hostile.bad.items():
        assert re.search(KNOWN_BAD[kind], reasons[key]), (key, kind, reasons[key])
    assert all(len(reason) > 5 for reason in reasons.values())


def test_the_store_is_whole_and_the_student_sees_what_the_teacher_saw(hostile, extracted):
    store = Store(extracted)
    assert verify_store(store).problems == ()
    assert verify_images(store, ViewReplay(store, open_images(hostile.root))) == ()


def test_above_the_limit_it_stops_and_goes_on_with_a_higher_one(hostile, extracted, tmp_path):
    alone = dataclasses.replace(RECIPE, workers=0)
    with pytest.raises(SourceError, match=r"101 of 2000 images cannot be used, more than .* 0\.05\. The first: "):
        extract(hostile.root, tmp_path / "store", alone, teacher=PatchMeans())
    assert list(tmp_path.glob("store/units/*"))
    extract(hostile.root, tmp_path / "store", dataclasses.replace(alone, max_failed=0.6), teacher=PatchMeans())
    assert files_of(tmp_path / "store") == files_of(extracted)


def files_of(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}
