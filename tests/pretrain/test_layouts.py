"""Training from tars is training from zarr: the same sequence of rows, the same weights, resumed alike."""

import dataclasses

import pytest

from caev2.pretrain.run import pretrain
from caev2.store.rewriting.convert import convert
from tests.made_up_pretrain import PRETRAIN
from tests.pretrain.training import assert_equal_runs, files_of, train

WINDOW = dataclasses.replace(PRETRAIN, order="window", window_blocks=2)


@pytest.mark.parametrize("recipe", [PRETRAIN, WINDOW], ids=["full", "window"])
@pytest.mark.parametrize("workers", [0, 2])
def test_tars_give_the_weights_that_zarr_gives_however_often_stopped(data, tmp_path, recipe, workers):
    convert(data / "store", tmp_path / "tars", layout="webdataset")
    train(data, tmp_path / "zarr", recipe)
    before = files_of(tmp_path / "tars")
    for stop_after in (4, 7, None):
        pretrain(
            tmp_path / "tars",
            tmp_path / "run",
            dataclasses.replace(recipe, workers=workers),
            images=data / "images",
            stop_after=stop_after,
        )
    assert_equal_runs(tmp_path / "zarr", tmp_path / "run")
    assert files_of(tmp_path / "tars") == before


def test_the_orders_train_different_students(data, tmp_path):
    train(data, tmp_path / "full")
    train(data, tmp_path / "window", WINDOW)
    with pytest.raises(AssertionError):
        assert_equal_runs(tmp_path / "full", tmp_path / "window")
