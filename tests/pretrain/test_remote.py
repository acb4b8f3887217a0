"""Training from an S3 server on loopback is training from a local disk."""

import dataclasses

import pytest

from caev2.pretrain.run import pretrain
from caev2.store.reader import Store
from caev2.store.remote.cache import CacheSettings
from caev2.store.remote.paths import open_remote
from caev2.store.rewriting.convert import convert
from caev2.store.rewriting.copy import copy_store
from caev2.store.verify import verify_store
from tests.made_up_pretrain import PRETRAIN
from tests.pretrain.training import assert_equal_runs, train
from tests.s3 import serving_s3

WINDOW = dataclasses.replace(PRETRAIN, order="window", window_blocks=2)


@pytest.fixture
def bucket(monkeypatch):
    with serving_s3(monkeypatch) as url:
        yield url


@pytest.mark.parametrize("layout", ["zarr", "webdataset"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_on_s3_gives_the_weights_of_the_local_one_however_often_stopped(
    data, tmp_path, bucket, layout, workers
):
    local = data / "store"
    if layout == "webdataset":
        local = tmp_path / "tars"
        convert(data / "store", local, layout="webdataset")
    settings = CacheSettings(folder=tmp_path / "cache", limit_bytes=10**8)
    copy_store(local, open_remote(f"{bucket}/store", settings))
    train(data, tmp_path / "here", WINDOW)
    for stop_after in (4, 7, None):
        pretrain(
            open_remote(f"{bucket}/store", settings),
            tmp_path / "run",
            dataclasses.replace(WINDOW, workers=workers),
            images=data / "images",
            stop_after=stop_after,
        )
    assert_equal_runs(tmp_path / "here", tmp_path / "run")


def test_a_store_on_s3_is_whole_and_comes_back(data, tmp_path, bucket):
    settings = CacheSettings(folder=tmp_path / "cache", limit_bytes=10**8)
    url = open_remote(f"{bucket}/store", settings)
    copy_store(data / "store", url)
    assert verify_store(Store(url)).problems == ()
    copy_store(url, tmp_path / "back")
    assert Store(tmp_path / "back").manifest == Store(data / "store").manifest
    assert verify_store(Store(tmp_path / "back")).problems == ()


def test_full_order_on_a_url_is_warned_of(data, tmp_path, bucket):
    warned = []

    class Listening:
        def start(self, *_): ...
        def advance(self, *_, **__): ...
        def finish(self): ...
        def say(self, *_): ...
        def warn(self, message):
            warned.append(message)

    settings = CacheSettings(folder=tmp_path / "cache", limit_bytes=10**8)
    copy_store(data / "store", open_remote(f"{bucket}/store", settings))
    pretrain(
        open_remote(f"{bucket}/store", settings),
        tmp_path / "run",
        PRETRAIN,
        images=data / "images",
        stop_after=1,
        progress=Listening(),
    )
    assert any("--set order=window" in message for message in warned)
