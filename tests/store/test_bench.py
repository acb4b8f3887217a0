"""Readers side by side: all of them are asked, and one that reads other numbers is told apart."""

import numpy as np
import pytest

from caev2.errors import StoreCorrupt
from caev2.store.bench import FLAT, bench_store
from caev2.store.layout import shard_path
from caev2.store.reader import Store
from tests.store.made_up import IMAGES, VIEWS, WIDTH, write_store


@pytest.mark.parametrize("codec", ["float16", "lloyd4"])
def test_every_reader_that_is_installed_is_measured(tmp_path, images, latents, codec):
    store = Store(write_store(tmp_path / codec, images, latents, codec))
    report = bench_store(store, "projected", batch=4, rounds=1, seconds=0.01)
    assert list(report.speed) == [FLAT, "caev2", "unchecked", "zarr-python", "zarr + zarrs", "tensorstore"]
    assert report.missing == ()
    assert report.rows == VIEWS * (IMAGES - 1)  # one cannot be decoded
    for speed in report.speed.values():
        assert 0 < speed.least <= speed.median <= speed.most


def test_a_damaged_row_is_no_benchmark(store_path):
    shard = store_path / shard_path("projected", 0, 0)
    data = bytearray(shard.read_bytes())
    data[2 * WIDTH] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreCorrupt, match="row of image 0, view 0 is damaged"):
        bench_store(Store(store_path), "projected", batch=4, rounds=1, seconds=0.01)


def test_without_checks_damage_is_returned(store_path):
    store = Store(store_path)
    sound = store.read_stored("projected", 0, [0])
    shard = store_path / shard_path("projected", 0, 0)
    data = bytearray(shard.read_bytes())
    data[2 * WIDTH] ^= 1
    shard.write_bytes(data)
    assert not np.array_equal(Store(store_path).read_stored("projected", 0, [0], check=False), sound)
