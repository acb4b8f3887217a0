"""Reading rows: the numbers that were written, by any reader; never other ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr

from caev2.errors import StoreCorrupt, StoreIncomplete, StoreMismatch
from caev2.store.layout import VIEW_FIELDS, chunk_path, shard_path, unit_path
from caev2.store.pixels.decode import decode_rgb
from caev2.store.pixels.views import hash_crop, render_view
from caev2.store.reader import Store
from caev2.store.verify import verify_store
from tests.store.made_up import BLOCK, DAMAGED, IMAGES, VIEWS

VALID = [number for number in range(IMAGES) if number != DAMAGED]


def test_rows_read_back_as_written_in_any_order(store_path, latents):
    store = Store(store_path)
    assert store.valid_images.tolist() == VALID
    for view in range(VIEWS):
        wanted = [10, 0, 7, 0, 4]
        assert np.array_equal(store.read_rows("projected", view, wanted), latents[wanted, view])


def test_zarr_and_tensorstore_read_the_same_numbers(store_path, latents):
    stored = latents.copy()
    stored[DAMAGED] = 0
    group = zarr.open_group(store_path, mode="r")
    codes = group["targets/projected/codes"][:]
    assert np.array_equal(codes, stored.swapaxes(0, 1))
    for array in ("targets/projected/codes", *(f"views/{field}" for field in VIEW_FIELDS)):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store_path / array)}}
        theirs = tensorstore.open(spec).result().read().result()
        assert np.array_equal(theirs, group[array][:]), array
    store = Store(store_path)
    for image in VALID:
        assert np.array_equal(codes[1, image], store.read_rows("projected", 1, [image])[0])
        assert group["views/crop_hash"][1, image] == store.view_value("crop_hash", 1, image)
        assert tuple(group["views/box"][1, image]) == store.view(1, image).box


def test_stored_parameters_replay_the_hashed_crop(store_path, images):
    store = Store(store_path)
    for image in VALID:
        for view in range(VIEWS):
            crop = render_view(decode_rgb(images.read(image)), store.view(view, image), 32)
            assert hash_crop(crop) == store.view_value("crop_hash", view, image)


def test_an_undecodable_image_keeps_its_row_and_reason_but_is_never_read(store_path, images):
    store = Store(store_path)
    assert store.manifest.failures == ((images.keys[DAMAGED], "no known image format"),)
    with pytest.raises(StoreMismatch, match=f"image {DAMAGED} has no valid row"):
        store.read_rows("projected", 0, [DAMAGED])


@pytest.mark.parametrize(("view", "image"), [(VIEWS, 0), (-1, 0), (0, IMAGES), (0, -1)])
def test_a_row_outside_of_the_store_is_refused(store_path, view, image):
    with pytest.raises(StoreMismatch, match="has no view"):
        Store(store_path).read_rows("projected", view, [image])


def test_a_target_that_is_not_stored_is_refused_with_the_nearest(store_path):
    with pytest.raises(StoreMismatch, match="Did you mean 'projected'"):
        Store(store_path).target("projcted")


def test_no_store_at_the_path_is_said(tmp_path):
    with pytest.raises(StoreMismatch, match="There is no store at"):
        Store(tmp_path / "nothing")


def test_an_unsealed_store_is_refused_unless_asked_for(store_path):
    import dataclasses

    from caev2.store.manifest import FILE_NAME, read_manifest

    manifest = dataclasses.replace(read_manifest(store_path), state="building", root_digest=None)
    (store_path / FILE_NAME).write_bytes(manifest.to_bytes())
    with pytest.raises(StoreIncomplete, match="not sealed"):
        Store(store_path)
    assert len(Store(store_path, allow_unsealed=True)) == IMAGES


def test_every_flipped_bit_of_a_shard_is_found_by_read_or_verify(store_path, latents):
    path = store_path / shard_path("projected", 1, 0)
    sound = path.read_bytes()
    row_bytes = latents[0, 0].nbytes + 4
    for bit in np.random.default_rng(2).choice(len(sound) * 8, 200, replace=False):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        row = bit // 8 // row_bytes
        store = Store(store_path)
        for image in range(BLOCK):
            if image == row and bit // 8 % row_bytes < row_bytes - 4:  # in a row's numbers
                with pytest.raises(StoreCorrupt, match=f"row of image {image}, view 1"):
                    store.read_rows("projected", 1, [image])
            else:
                assert np.array_equal(store.read_rows("projected", 1, [image])[0], latents[image, 1])
        assert verify_store(store).problems
    path.write_bytes(sound)
    assert verify_store(Store(store_path)).problems == ()


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


@pytest.mark.parametrize("places", [((0, 0), (1, 0)), ((0, 0), (0, 1)), ((1, 0), (0, 1))])
def test_swapped_shards_are_never_returned_as_data(store_path, places):
    (view, block), other = places
    swap(store_path / shard_path("projected", view, block), store_path / shard_path("projected", *other))
    store = Store(store_path)
    with pytest.raises(StoreCorrupt, match="is damaged"):
        store.read_rows("projected", view, [block * BLOCK + 1])
    assert len(verify_store(store).problems) == 2


def test_swapped_view_parameters_are_found(store_path):
    field = VIEW_FIELDS["box"]
    swap(store_path / chunk_path("views/box", 0, 0, field), store_path / chunk_path("views/box", 0, 1, field))
    assert len(verify_store(Store(store_path)).problems) == 2


@pytest.mark.parametrize("kept", [0, 1, 50, -1])
def test_a_truncated_shard_is_refused(store_path, kept):
    path = store_path / shard_path("projected", 0, 0)
    path.write_bytes(path.read_bytes()[:kept])
    store = Store(store_path)
    with pytest.raises(StoreCorrupt, match=r"bytes, .* were written"):
        store.read_rows("projected", 0, [0])
    assert len(verify_store(store).problems) == 1


def test_a_missing_shard_is_not_zeros(store_path):
    (store_path / shard_path("projected", 0, 0)).unlink()
    with pytest.raises(StoreCorrupt, match="cannot be read"):
        Store(store_path).read_rows("projected", 0, [0])


def test_an_edited_manifest_is_refused(store_path):
    path = store_path / "manifest.json"
    content = json.loads(path.read_text())
    content["views"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(StoreCorrupt, match="was changed after it was written"):
        Store(store_path)
    path.write_text("{")
    with pytest.raises(StoreCorrupt, match="damaged"):
        Store(store_path)


@pytest.mark.parametrize("lost", ["index.parquet", unit_path(1), "views/box/zarr.json"])
def test_verify_names_a_lost_file(store_path, lost):
    (store_path / lost).unlink()
    assert any(lost in problem for problem in verify_store(Store(store_path)).problems)


def test_verify_names_a_foreign_file(store_path):
    (store_path / "views" / "notes.txt").write_text("mine")
    assert verify_store(Store(store_path)).problems == ("views/notes.txt does not belong to the store",)


def test_a_moved_store_reads_the_same(store_path, latents, tmp_path):
    moved = shutil.move(store_path, tmp_path / "elsewhere")
    assert np.array_equal(Store(moved).read_rows("projected", 0, VALID), latents[VALID, 0])
