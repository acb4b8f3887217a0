"""Joining stores: every row under its key, and nothing joined that does not fit."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from caev2.errors import StoreMismatch
from caev2.store.images import open_images
from caev2.store.pixels.views import ViewSettings
from caev2.store.reader import Store
from caev2.store.rewriting.merge import merge
from caev2.store.verify import verify_store
from tests.store.made_up import IMAGES, VIEWS, make_images, make_latents, write_store


@pytest.fixture
def parts(tmp_path) -> tuple[Path, Path]:
    """Folders of the same pictures under other keys, one with a class that the other has not."""
    make_images(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for image in (tmp_path / "two").glob("*/*.png"):
        image.rename(image.with_name(f"b-{image.name}"))
    (tmp_path / "two/dog").rename(tmp_path / "two/eel")
    return tmp_path / "one", tmp_path / "two"


@pytest.mark.parametrize("codec", ["float16", "lloyd4"])
@pytest.mark.parametrize("layout", ["zarr", "webdataset"])
def test_a_merged_store_has_every_row_under_its_key(tmp_path, parts, codec, layout):
    latents = make_latents()
    sources = [open_images(part) for part in parts]
    order = [source.keys.index(key) for source in sources for key in source.keys]
    assert order == [*range(IMAGES)] * 2
    one = write_store(tmp_path / "s1", sources[0], latents, codec, layout=layout, crops="jpeg")
    tables = None if codec == "float16" else Store(one).tables("projected")
    two = write_store(tmp_path / "s2", sources[1], latents * np.float16(2), codec, tables=tables, crops="jpeg")
    merge([one, two], tmp_path / "all")
    merged, stores = Store(tmp_path / "all"), [Store(one), Store(two)]
    assert merged.manifest.layout == layout
    assert merged.keys == sorted([*sources[0].keys, *sources[1].keys])
    assert merged.manifest.classes == ("cat", "dog", "eel")
    assert verify_store(merged).problems == ()
    compared = 0
    for image in merged.valid_images.tolist():
        key = merged.keys[image]
        store = next(store for store in stores if key in store.keys)
        there = store.keys.index(key)
        assert merged.manifest.classes[merged.labels[image]] == key.partition("/")[0]
        assert merged.source_digests[image] == store.source_digests[there]
        for view in range(VIEWS):
            ours, theirs = (one.read_stored("projected", view, [n])[0] for one, n in ((merged, image), (store, there)))
            assert np.array_equal(ours, theirs)
            assert merged.read_crop(view, image) == store.read_crop(view, there)
            assert merged.view(view, image) == store.view(view, there)
            compared += 1
    assert compared == 2 * VIEWS * (IMAGES - 1)
    assert [reason for _, reason in merged.manifest.failures] == ["no known image format"] * 2


def test_the_order_of_the_parts_does_not_matter(tmp_path, parts):
    stores = [write_store(tmp_path / part.name[0], open_images(part), make_latents()) for part in parts]
    one = merge(stores, tmp_path / "forth")
    other = merge(stores[::-1], tmp_path / "back")
    assert one.root_digest == other.root_digest


def test_a_merged_store_trains_and_reads_from_the_joined_folder(tmp_path, parts):
    """Keys and labels are those of a folder that holds both."""
    stores = [write_store(tmp_path / part.name[0], open_images(part), make_latents()) for part in parts]
    merge(stores, tmp_path / "all")
    for image in parts[1].glob("*/*.png"):
        (parts[0] / image.parent.name).mkdir(exist_ok=True)
        shutil.copy(image, parts[0] / image.parent.name / image.name)
    assert open_images(parts[0]).digest() == Store(tmp_path / "all").manifest.source_digest


def test_a_store_is_not_merged_with_itself(tmp_path, store_path):
    with pytest.raises(StoreMismatch, match=r"Both .*store and .*store have an image with the key 'cat/00\.png'"):
        merge([store_path, store_path], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_stores_that_share_a_key_are_refused(tmp_path, images, latents, store_path):
    other = write_store(tmp_path / "other", images, latents)
    with pytest.raises(StoreMismatch, match=r"Both .* have an image with the key 'cat/00.png'"):
        merge([store_path, other], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_stores_of_other_tables_or_views_are_refused(tmp_path, parts):
    sources = [open_images(part) for part in parts]
    one = write_store(tmp_path / "s1", sources[0], make_latents(), "lloyd4")
    two = write_store(tmp_path / "s2", sources[1], -make_latents(), "lloyd4")
    with pytest.raises(StoreMismatch, match=r"does not fit .*targets.projected.tables is .*--calibration"):
        merge([one, two], tmp_path / "all")
    plain = write_store(tmp_path / "s3", sources[1], make_latents())
    with pytest.raises(StoreMismatch, match=r"targets.projected.codec is 'float16', and not 'lloyd4'"):
        merge([one, plain], tmp_path / "all")
    with pytest.raises(StoreMismatch, match="give at least two"):
        merge([one], tmp_path / "all")


def test_other_view_settings_are_refused(tmp_path, parts, monkeypatch):
    from tests.store import made_up

    sources = [open_images(part) for part in parts]
    one = write_store(tmp_path / "s1", sources[0], make_latents())
    usual = made_up.manifest_of
    monkeypatch.setattr(
        made_up, "manifest_of", lambda *some, **more: usual(*some, **more, views=ViewSettings(size_px=32, seed=7))
    )
    two = write_store(tmp_path / "s2", sources[1], make_latents())
    with pytest.raises(StoreMismatch, match=r"its views.seed is 7, and not 0"):
        merge([one, two], tmp_path / "all")
