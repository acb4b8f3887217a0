"""Runs that start from weights which are there already."""

import dataclasses

import pytest
import torch

from caev2.errors import CheckpointError
from caev2.pretrain.identity import read_identity
from caev2.pretrain.plan import fit_recipe
from caev2.pretrain.start import starting_student
from caev2.pretrain.student.model import build
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.weights.official import to_official
from caev2.recipe import override
from caev2.store.reader import Store
from tests.made_up_pretrain import PRETRAIN
from tests.pretrain.training import assert_equal_runs, last_weights, train

# a published width, whose heads are known, on the made-up images
PUBLISHED = dataclasses.replace(
    PRETRAIN,
    model=ModelSettings(
        image_px=32, patch_px=8, width=192, depth=1, heads=12, regressor_width=96, regressor_depth=1, regressor_heads=12
    ),
)  # fmt: skip


@pytest.fixture
def old(data, tmp_path):
    train(data, tmp_path / "old", stop_after=3)
    return tmp_path / "old"


def weights_of(run):
    return {name: tensor for name, tensor in last_weights(run).items() if name.startswith("model/")}


def test_a_new_run_starts_from_the_weights_of_another_and_resumes_like_any(data, old, tmp_path):
    train(data, tmp_path / "new", init_from=old, stop_after=0)
    before, after = weights_of(old), weights_of(tmp_path / "new")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    train(data, tmp_path / "new", init_from=old, stop_after=5)
    train(data, tmp_path / "new", init_from=old)
    train(data, tmp_path / "whole", init_from=old)
    assert_equal_runs(tmp_path / "new", tmp_path / "whole")
    train(data, tmp_path / "fresh")
    assert not torch.equal(
        weights_of(tmp_path / "fresh")["model/head.linear.weight"],
        weights_of(tmp_path / "whole")["model/head.linear.weight"],
    )


def test_what_a_run_started_from_is_part_of_what_it_is(data, old, tmp_path):
    train(data, tmp_path / "new", init_from=old, stop_after=1)
    assert read_identity(tmp_path / "new").init_from is not None
    assert "init_from" not in read_identity(old).mapping()
    with pytest.raises(CheckpointError, match=r"its init_from is '\w+', this command asks for None"):
        train(data, tmp_path / "new")
    with pytest.raises(CheckpointError, match=r"its init_from is None, this command asks for '\w+'"):
        train(data, old, init_from=tmp_path / "new")
    train(data, old)  # other weights at the same place
    with pytest.raises(CheckpointError, match=r"its init_from is '\w+', this command asks for '\w+'"):
        train(data, tmp_path / "new", init_from=old)


def test_an_official_encoder_is_taken_and_the_rest_starts_from_the_seed(data, tmp_path):
    settings = fit_recipe(PUBLISHED, Store(data / "store")).model
    trained = to_official(build(settings, seed=5).state_dict())
    file = tmp_path / "encoder.pth"
    torch.save({"model": {name: tensor for name, tensor in trained.items() if name.startswith("encoder.")}}, file)
    train(data, tmp_path / "run", PUBLISHED, init_from=file, stop_after=0)
    theirs, ours = build(settings, seed=5).state_dict(), build(settings, PUBLISHED.seed).state_dict()
    for name, tensor in weights_of(tmp_path / "run").items():
        name = name.removeprefix("model/")
        assert torch.equal(tensor, (theirs if name.startswith("encoder.") else ours)[name]), name


def test_weights_that_would_compute_something_else_are_refused(data, old, tmp_path):
    model = PRETRAIN.model
    for name in ("heads", "regressor_heads"):
        other = override(PRETRAIN, [f"model.{name}=1"])
        with pytest.raises(
            CheckpointError, match=rf"model.{name} = 2, the recipe asks for 1. Give --set model.{name}=2"
        ):
            train(data, tmp_path / "new", other, init_from=old)
    with pytest.raises(CheckpointError, match="is of a student of other sizes"):
        train(data, tmp_path / "new", override(PRETRAIN, ["model.depth=3"]), init_from=old)
    torch.save({"model": to_official(build(PUBLISHED.model, seed=5).state_dict())}, tmp_path / "file.pth")
    three = dataclasses.replace(PUBLISHED.model, heads=3, target_width=512)
    with pytest.raises(CheckpointError, match=r"file.pth is of a student with model.heads = 12, the recipe asks for 3"):
        starting_student(three, 0, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"decoder.head.weight has shape \(512, 96\), but .* \(6, 96\). Give"):
        train(data, tmp_path / "new", PUBLISHED, init_from=tmp_path / "file.pth")
    for place in (tmp_path / "nowhere", data / "images"):
        with pytest.raises(CheckpointError, match="There is no"):
            starting_student(model, 0, place)
    assert not (tmp_path / "new").exists()


def test_a_run_without_a_checkpoint_is_no_start(data, old, tmp_path):
    for path in (old / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        train(data, tmp_path / "new", init_from=old)
