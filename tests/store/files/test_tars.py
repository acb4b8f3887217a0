"""The layout of tars: what stock webdataset reads, and what is refused."""

import io
import json
import tarfile

import numpy as np
import pytest
import webdataset
from PIL import Image

from caev2.errors import StoreCorrupt
from caev2.store.files.tars import member_header, npy_header
from caev2.store.images import open_images
from caev2.store.layout import tar_path
from caev2.store.pixels.crops import decode_crop
from caev2.store.reader import Store
from caev2.store.rewriting.convert import convert
from caev2.store.verify import verify_store
from tests.store import made_up
from tests.store.made_up import BLOCK, DAMAGED, IMAGES, VIEWS, write_store

leaves_files_open = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""Stock webdataset does."""


@pytest.fixture
def tars(tmp_path, images, latents):
    return write_store(tmp_path / "tars", images, latents, "int8", crops="jpeg", layout="webdataset")


@leaves_files_open
def test_stock_webdataset_reads_the_same_numbers(tars):
    store, seen = Store(tars), 0
    for view in range(VIEWS):
        urls = [str(tars / tar_path(view, block)) for block in range(store.manifest.blocks)]
        samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8"))
        assert [sample["json"]["image"] for sample in samples] == list(range(IMAGES))
        for image, sample in enumerate(samples):
            described = sample["json"]
            assert described["key"] == store.keys[image]
            assert described["label"] == store.labels[image]
            assert described["view"] == view
            assert ("projected.npy" in sample) == described["valid"] == (image != DAMAGED)
            if described["valid"]:
                assert np.array_equal(sample["projected.npy"], store.read_stored("projected", view, [image])[0])
                kept = decode_crop("jpeg", store.read_crop(view, image), 32)
                assert np.array_equal(sample["jpg"], kept)
                assert tuple(described["box"]) == store.view(view, image).box
                assert tuple(described["factors"]) == store.view(view, image).factors
                seen += 1
    assert seen == VIEWS * (IMAGES - 1)


@leaves_files_open
def test_raw_crops_are_arrays_for_stock_webdataset(tmp_path, images, latents):
    path = write_store(tmp_path / "raw", images, latents, crops="raw", layout="webdataset")
    sample = next(iter(webdataset.WebDataset(str(path / tar_path(0, 0)), shardshuffle=False).decode()))
    assert np.array_equal(sample["crop.npy"], decode_crop("raw", Store(path).read_crop(0, 0), 32))


def test_headers_are_those_that_tarfile_and_numpy_write():
    info = tarfile.TarInfo("000001-000002.projected.npy")
    info.size, info.mode = 123_456, 0o644
    assert member_header(info.name, info.size) == info.tobuf(tarfile.USTAR_FORMAT)
    for dtype, shape in (("float16", (197, 512)), ("uint8", (197, 258)), ("uint8", (224, 224, 3))):
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        )
        assert npy_header(dtype, shape) == file.getvalue()


def test_a_tar_cut_at_any_member_boundary_is_found(tars):
    path = tars / tar_path(1, 0)
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        cuts = [member.offset for member in tar.getmembers()]
    assert len(cuts) == 3 * BLOCK
    for cut in cuts:
        path.write_bytes(whole[:cut] + bytes(1024))
        for image in range(BLOCK):
            with pytest.raises(StoreCorrupt, match=rf"{path.name} holds \d+ bytes, {len(whole)} were written"):
                Store(tars).read_rows("projected", 1, [image])
        problems = verify_store(Store(tars)).problems
        assert any(problem.startswith(f"{tar_path(1, 0)} holds") for problem in problems)


def test_tars_that_were_exchanged_are_found(tars):
    one, other = tars / tar_path(0, 0), tars / tar_path(1, 0)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    with pytest.raises(StoreCorrupt):
        Store(tars).read_rows("projected", 0, [0])


def rewritten(tars, change) -> Store:
    """The store with one tar whose members were changed, its size kept."""
    path = tars / tar_path(0, 0)
    size, changed = path.stat().st_size, io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=changed, mode="w", format=tarfile.USTAR_FORMAT) as new:
        for member in old.getmembers():
            data = old.extractfile(member).read()
            member, data = change(member, data)
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    path.write_bytes(changed.getvalue()[:size].ljust(size, b"\0"))
    return Store(tars)


@pytest.mark.parametrize(
    "name", ["../../../escaped", "/etc/escaped", "000000-000000.projected.pyd", "000000-000000.projected.pickle"]
)
def test_a_member_of_another_name_is_refused_and_nothing_is_written(tars, tmp_path, name):
    def rename(member, data):
        if member.name == "000000-000000.projected.npy":
            member.name = name
        return member, data

    store = rewritten(tars, rename)
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(StoreCorrupt, match=r"there is no member '000000-000000\.projected\.npy'"):
        store.read_rows("projected", 0, [0])
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_pickle_in_place_of_a_row_is_damage_and_never_loaded(tars, tmp_path):
    class Canary:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    file = io.BytesIO()
    np.save(file, np.array([Canary()], dtype=object), allow_pickle=True)

    def replace(member, data):
        if member.name == "000000-000000.projected.npy":
            data = file.getvalue().ljust(len(data), b"\0")
        return member, data

    store = rewritten(tars, replace)
    with pytest.raises(StoreCorrupt, match="row of image 0, view 0 is damaged"):
        store.read_rows("projected", 0, [0])
    with pytest.raises(ValueError, match="allow_pickle=False"):  # a reader of `.npy` files is safe as well
        np.load(io.BytesIO(file.getvalue()))
    assert not (tmp_path / "ran").exists()


def test_a_link_in_place_of_a_row_is_refused(tars):
    def link(member, data):
        if member.name == "000000-000001.projected.npy":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            data = b""
        return member, data

    with pytest.raises(StoreCorrupt, match=r"there is no member '000000-000001\.projected\.npy'"):
        rewritten(tars, link).read_rows("projected", 0, [1])


def test_keys_of_every_kind_survive_in_the_descriptions(tmp_path, latents, monkeypatch):
    folder = tmp_path / "images"
    folder.mkdir()
    names = ["a b.png", "c.d.e.png", "ü-ж.png", "line\nbreak.png", "quote\"'.png"]
    for name in names:
        Image.new("RGB", (40, 50), (9, 9, 9)).save(folder / name)
    source = open_images(folder)
    path = tmp_path / "store"
    monkeypatch.setattr(made_up, "DAMAGED", -1)
    write_store(path, source, latents[: len(source)])
    convert(path, tmp_path / "tars", layout="webdataset")
    convert(tmp_path / "tars", tmp_path / "back", layout="zarr")
    assert Store(path).keys == Store(tmp_path / "tars").keys == Store(tmp_path / "back").keys == list(source.keys)
    assert set(source.keys) == set(names)
    found = []
    for block in range(Store(path).manifest.blocks):
        with tarfile.open(tmp_path / "tars" / tar_path(0, block)) as tar:
            found += [json.load(tar.extractfile(one))["key"] for one in tar.getmembers() if one.name.endswith("json")]
    assert found == list(source.keys)
