"""Whatever an image is called, its key comes back as it was, in every layout, copied, joined and through stock readers."""

import json
import tarfile
import unicodedata

import numpy as np
import pytest
from PIL import Image

from caev2.store.images import open_images
from caev2.store.layout import tar_path
from caev2.store.reader import Store
from caev2.store.rewriting.cold import freeze, thaw
from caev2.store.rewriting.convert import convert
from caev2.store.rewriting.merge import merge
from caev2.store.verify import verify_store
from tests.store.made_up import IMAGES, make_latents, write_store

NAMES = [
    "a.b.c.tar.png",
    "a b  c.png",
    " leading and trailing .png",
    "new\nline.png",
    "tab\tand\rreturn.png",
    "Ünïcödé ‮ 漢字 🐈.png",
    unicodedata.normalize("NFD", "é decomposed.png"),
    'quote " and \\ backslash.png',
    "{000..007}, $HOME; `true` | x.png",
    "-rf *.png",
    "%2e%2e%2f #?.png",
]


@pytest.fixture
def odd(tmp_path):
    place = tmp_path / "images" / "class with. dots\nand lines"
    place.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.fromarray(np.full((40, 50, 3), number * 20, np.uint8)).save(place / name)
    return open_images(tmp_path / "images")


@pytest.fixture(params=["zarr", "webdataset"])
def store(tmp_path, odd, request):
    return write_store(tmp_path / "store", odd, make_latents(), crops="raw", layout=request.param)


def test_the_names_are_as_many_and_as_odd_as_they_should_be(odd):
    wanted = sorted(unicodedata.normalize("NFC", f"class with. dots\nand lines/{name}") for name in NAMES)
    assert list(odd.keys) == wanted
    assert len(wanted) == IMAGES


def test_keys_survive_every_layout_and_every_way_between(tmp_path, odd, store):
    other = "zarr" if Store(store).manifest.layout == "webdataset" else "webdataset"
    convert(store, tmp_path / "other", layout=other)
    freeze(tmp_path / "other", tmp_path / "cold")
    thaw(tmp_path / "cold", tmp_path / "thawed")
    for path in (store, tmp_path / "other", tmp_path / "thawed"):
        assert Store(path).keys == list(odd.keys)
        assert Store(path).manifest.classes == ("class with. dots\nand lines",)
        assert verify_store(Store(path)).problems == ()
        assert Store(path).read_crop(0, 3) == Store(store).read_crop(0, 3)


def test_keys_survive_a_merge(tmp_path, store):
    place = tmp_path / "plain images" / "plain"
    place.mkdir(parents=True)
    for number in range(IMAGES):
        Image.fromarray(np.full((40, 50, 3), number, np.uint8)).save(place / f"{number:02}.png")
    plain = write_store(tmp_path / "plain", open_images(place.parent), make_latents(), crops="raw")
    merge([store, plain], tmp_path / "merged")
    assert sorted(Store(tmp_path / "merged").keys) == sorted(Store(store).keys + Store(plain).keys)
    assert verify_store(Store(tmp_path / "merged")).problems == ()


def test_names_in_tars_are_digits_whatever_the_keys(tmp_path, odd):
    path = write_store(tmp_path / "tars", odd, make_latents(), layout="webdataset")
    found = []
    for block in range(Store(path).manifest.blocks):
        with tarfile.open(path / tar_path(0, block)) as tar:
            for member in tar:
                assert member.name.partition(".")[0].replace("-", "").isdigit()
                if member.name.endswith(".json"):
                    found.append(json.loads(tar.extractfile(member).read())["key"])
    assert found == list(odd.keys)
