"""The same rows in other files: there and back, in every layout and codec, byte for byte."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from caev2.errors import StoreCorrupt, StoreMismatch
from caev2.store.codecs.quality import QualityFloor
from caev2.store.layout import tar_path
from caev2.store.reader import Store
from caev2.store.rewriting.cold import COLD, freeze, thaw
from caev2.store.rewriting.convert import convert
from caev2.store.verify import verify_store
from tests.store.made_up import BLOCK, DAMAGED, IMAGES, VIEWS, write_store

VALID = [number for number in range(IMAGES) if number != DAMAGED]


ANY = QualityFloor(relative_error=10.0, centred_cosine_p1=-1.0)
"""Nothing is asked of a codec that learns from eight images."""


def contents(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize("crops", [None, "jpeg", "raw"])
@pytest.mark.parametrize("codec", ["float16", "lloyd4"])
def test_zarr_to_tars_and_back_is_the_same_store_byte_for_byte(tmp_path, images, latents, codec, crops):
    store = write_store(tmp_path / "store", images, latents, codec, crops=crops)
    there = convert(store, tmp_path / "tars", layout="webdataset")
    assert there.layout == "webdataset"
    assert verify_store(Store(tmp_path / "tars")).problems == ()
    convert(tmp_path / "tars", tmp_path / "back", layout="zarr")
    assert contents(tmp_path / "back") == contents(store)


@pytest.mark.parametrize("crops", [None, "jpeg", "raw"])
def test_both_layouts_read_the_same_rows_and_crops(tmp_path, images, latents, crops):
    store = write_store(tmp_path / "store", images, latents, "int8", crops=crops)
    convert(store, tmp_path / "tars", layout="webdataset")
    one, other = Store(store), Store(tmp_path / "tars")
    for view in range(VIEWS):
        wanted = [10, 0, 7, 0, 4]
        assert np.array_equal(one.read_stored("projected", view, wanted), other.read_stored("projected", view, wanted))
        assert one.view(view, 3) == other.view(view, 3)
        for image in VALID if crops else ():
            assert one.read_crop(view, image) == other.read_crop(view, image)
    assert one.manifest.failures == other.manifest.failures


def test_a_store_that_was_written_as_tars_is_the_one_that_was_converted(tmp_path, images, latents, store_path):
    write_store(tmp_path / "tars", images, latents, layout="webdataset")
    convert(store_path, tmp_path / "converted", layout="webdataset")
    assert contents(tmp_path / "tars") == contents(tmp_path / "converted")


@pytest.mark.parametrize("codec", ["int8", "lloyd4"])
def test_encoding_a_float16_store_gives_the_store_that_was_written_so(tmp_path, images, latents, store_path, codec):
    convert(store_path, tmp_path / codec, codec=codec, floor=ANY)
    given = Store(tmp_path / codec)
    tables, quality = given.tables("projected"), given.path / "targets/projected/codec/quality.json"
    assert quality.is_file()
    write_store(tmp_path / "direct", images, latents, codec, tables=tables)
    theirs = contents(tmp_path / "direct")
    ours = contents(given.path)
    assert {path for path in ours if ours[path] != theirs.get(path)} <= {
        "manifest.json",  # the root digest counts quality.json, which was not measured here
        "targets/projected/codec/quality.json",
    }


def test_a_codec_can_take_the_tables_of_another_store(tmp_path, images, latents, store_path):
    other = write_store(tmp_path / "other", images, latents * np.float16(0.5), "lloyd4")
    convert(store_path, tmp_path / "with", codec="lloyd4", calibration=other)
    wanted, found = Store(other).tables("projected"), Store(tmp_path / "with").tables("projected")
    assert wanted.keys() == found.keys()
    assert all(np.array_equal(wanted[name], found[name]) for name in wanted)


def test_what_a_codec_has_lost_does_not_come_back(tmp_path, images, latents):
    store = write_store(tmp_path / "store", images, latents, "lloyd4")
    with pytest.raises(StoreMismatch, match="stored in lloyd4; only float16 can be encoded"):
        convert(store, tmp_path / "more", codec="int8")
    assert not (tmp_path / "more").exists()


def test_a_store_that_is_so_already_is_not_converted(tmp_path, store_path):
    with pytest.raises(StoreMismatch, match="is so already"):
        convert(store_path, tmp_path / "same", layout="zarr", codec="float16")
    with pytest.raises(StoreMismatch, match="cannot be converted in its place"):
        convert(store_path, store_path, layout="webdataset")


def test_an_interrupted_conversion_goes_on(tmp_path, store_path, monkeypatch):
    convert(store_path, tmp_path / "whole", layout="webdataset")
    calls = []

    def stop(self) -> None:
        calls.append(self)
        if len(calls) == 2:
            raise KeyboardInterrupt
        finish(self)

    from caev2.store.unit_writer import UnitWriter

    finish = UnitWriter.finish
    monkeypatch.setattr(UnitWriter, "finish", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(store_path, tmp_path / "tars", layout="webdataset")
    convert(store_path, tmp_path / "tars", layout="webdataset")
    assert len(calls) == 2 + 2, "the first unit was not written again"
    assert contents(tmp_path / "tars") == contents(tmp_path / "whole")


def test_a_damaged_row_is_not_carried_over(tmp_path, store_path):
    shard = next(store_path.glob("targets/projected/codes/c/1/1/0/0"))
    data = bytearray(shard.read_bytes())
    data[3] ^= 4
    shard.write_bytes(data)
    with pytest.raises(StoreCorrupt, match=f"row of image {BLOCK}, view 1 is damaged"):
        convert(store_path, tmp_path / "tars", layout="webdataset")
    assert not (tmp_path / "tars" / tar_path(0, 1)).exists()


@pytest.mark.parametrize("layout", ["zarr", "webdataset"])
def test_a_cold_copy_brings_back_the_same_bytes(tmp_path, images, latents, layout):
    store = write_store(tmp_path / "store", images, latents, layout=layout)
    frozen = freeze(store, tmp_path / "cold")
    assert frozen.bytes == sum(len(data) for data in contents(store).values())
    thaw(tmp_path / "cold", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(store)


def test_an_interrupted_cold_copy_goes_on_and_an_interrupted_thaw_too(tmp_path, store_path):
    freeze(store_path, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cold")
    (tmp_path / "cold/files/index.parquet.zst").unlink()
    freeze(store_path, tmp_path / "cold")
    assert contents(tmp_path / "cold") == contents(tmp_path / "whole")
    (tmp_path / "back").mkdir()
    (tmp_path / "back/index.parquet").write_bytes(b"half")
    thaw(tmp_path / "cold", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(store_path)


def test_a_cold_copy_is_no_store_and_damage_to_it_is_named(tmp_path, store_path):
    freeze(store_path, tmp_path / "cold")
    with pytest.raises(StoreMismatch, match="is a cold copy of a store"):
        Store(tmp_path / "cold")
    frozen = tmp_path / "cold/files/index.parquet.zst"
    data = bytearray(frozen.read_bytes())
    for place in range(0, len(data), 7):
        frozen.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(StoreCorrupt, match=r"index\.parquet\.zst is damaged"):
            thaw(tmp_path / "cold", tmp_path / f"back{place}")
        assert not (tmp_path / f"back{place}/manifest.json").exists()


def test_what_an_earlier_run_left_damaged_is_compressed_again(tmp_path, store_path):
    freeze(store_path, tmp_path / "cold")
    path = next((tmp_path / "cold").rglob("codes/c/0/0/0/0.zst"))
    path.write_bytes(path.read_bytes()[:-9])
    freeze(store_path, tmp_path / "cold")
    thaw(tmp_path / "cold", tmp_path / "thawed")
    assert contents(tmp_path / "thawed") == contents(store_path)


def test_a_damaged_store_is_not_compressed(tmp_path, store_path):
    path = next(store_path.rglob("codes/c/0/0/0/0"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreCorrupt, match="is damaged, and a copy would be"):
        freeze(store_path, tmp_path / "cold")
    assert not (tmp_path / "cold").exists()


def test_a_store_inside_of_its_source_is_refused(store_path):
    before = contents(store_path)
    with pytest.raises(StoreMismatch, match="lies inside of the store"):
        convert(store_path, store_path / "inner", layout="webdataset")
    assert contents(store_path) == before


def test_a_cold_copy_that_names_a_file_outside_is_refused(tmp_path, store_path):
    import json

    from caev2.recipe import fingerprint

    freeze(store_path, tmp_path / "cold")
    content = json.loads((tmp_path / "cold" / COLD).read_bytes())
    del content["digest"]
    content["files"]["../escaped"] = content["files"]["index.parquet"]
    content["digest"] = fingerprint(content)
    (tmp_path / "cold" / COLD).write_text(json.dumps(content))
    with pytest.raises(StoreCorrupt, match=r"'\.\./escaped', which lies outside"):
        thaw(tmp_path / "cold", tmp_path / "back")
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "back").exists()
