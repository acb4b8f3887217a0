"""Training against a store: resumable to the last bit, and clear about what it refuses."""

import dataclasses
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from caev2.errors import (
    CheckpointError,
    ConfigError,
    PixelDrift,
    SourceError,
    StoreIncomplete,
    StoreMismatch,
)
from caev2.extract.run import extract
from caev2.pretrain.learning.step import tensor_cores
from caev2.pretrain.plan import fit_recipe, plan
from caev2.pretrain.run import pretrain, told_when_memory_is_short
from caev2.pretrain.student.model import build
from caev2.pretrain.telling.log import read_log
from caev2.pretrain.together.ranks import ALONE, Company, Ranks, device_of
from caev2.pretrain.weights.checkpoint import latest_checkpoint
from caev2.recipe import override
from caev2.store.manifest import read_manifest
from caev2.store.reader import Store
from tests.made_up import EXTRACT, PRETRAIN, PatchMeans, make_photographs
from tests.pretrain.training import STEPS, assert_equal_runs, last_weights, losses, train


def test_a_resumed_run_equals_an_uninterrupted_one(data, tmp_path):
    train(data, tmp_path / "whole")
    assert [step for step, _ in losses(tmp_path / "whole")] == list(range(STEPS))
    chance = random.Random(0)
    for stops in (sorted(chance.sample(range(1, STEPS), count)) for count in (1, 2, 4)):
        run = tmp_path / "-".join(map(str, stops))
        for stop in stops:
            assert train(data, run, stop_after=stop).steps == stop
        result = train(data, run)
        assert result.steps_computed == STEPS - stops[-1]
        assert_equal_runs(run, tmp_path / "whole")


def test_workers_and_log_and_checkpoint_settings_do_not_change_the_weights(data, tmp_path):
    train(data, tmp_path / "one")
    other = dataclasses.replace(PRETRAIN, workers=2, log_steps=2, checkpoint_steps=2, keep_checkpoints=1)
    train(data, tmp_path / "other", other)
    one, two = last_weights(tmp_path / "one"), last_weights(tmp_path / "other")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert len(list((tmp_path / "other" / "checkpoints").iterdir())) == 1


def test_a_finished_run_is_not_trained_again(data, tmp_path):
    train(data, tmp_path / "run")
    before = last_weights(tmp_path / "run")
    assert train(data, tmp_path / "run").steps_computed == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in last_weights(tmp_path / "run").items())


def test_the_student_learns_the_targets(data, tmp_path):
    recipe = dataclasses.replace(PRETRAIN, epochs=40, log_steps=10)
    train(data, tmp_path / "run", recipe)
    log = read_log(tmp_path / "run")
    assert log[-1]["loss"] < 0.6 * log[0]["loss"]
    for kind in ("class", "visible", "masked"):
        assert log[-1][f"cosine_{kind}"] > log[0][f"cosine_{kind}"]


def test_another_seed_is_another_run(data, tmp_path):
    train(data, tmp_path / "one")
    train(data, tmp_path / "other", override(PRETRAIN, ["seed=1"]))
    assert losses(tmp_path / "one")[0] != losses(tmp_path / "other")[0]
    with pytest.raises(CheckpointError, match=r"its recipe.seed is 0, this command asks for 1"):
        train(data, tmp_path / "one", override(PRETRAIN, ["seed=1"]))


def test_stopping_after_no_step_keeps_the_weights_that_training_would_start_from(data, tmp_path):
    assert train(data, tmp_path / "run", stop_after=0).steps == 0
    assert latest_checkpoint(tmp_path / "run" / "checkpoints").step == 0
    fresh = build(fit_recipe(PRETRAIN, Store(data / "store")).model, PRETRAIN.seed).state_dict()
    kept = last_weights(tmp_path / "run")
    assert all(torch.equal(kept[f"model/{name}"], tensor) for name, tensor in fresh.items())
    train(data, tmp_path / "run")
    train(data, tmp_path / "whole")
    assert_equal_runs(tmp_path / "run", tmp_path / "whole")


def test_only_on_a_gpu_and_only_while_training_are_float32_products_in_tf32():
    for device, precision in (("cpu", "highest"), ("cuda", "high"), ("cuda:1", "high")):
        with tensor_cores(device):
            assert torch.get_float32_matmul_precision() == precision
        assert torch.get_float32_matmul_precision() == "highest"


def test_another_store_is_refused(data, tmp_path):
    train(data, tmp_path / "run", stop_after=2)
    extract(data / "images", tmp_path / "store", override(EXTRACT, ["views.seed=1"]), teacher=PatchMeans())
    with pytest.raises(CheckpointError, match="store_digest"):
        pretrain(tmp_path / "store", tmp_path / "run", PRETRAIN, images=data / "images")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (["model.image_px=48"], StoreMismatch, "views of 32 pixels, the recipe's student takes 48"),
        (
            ["mask.count=2", "model.patch_px=16"],
            StoreMismatch,
            "has 16 patches in an image, the recipe's student 4",
        ),
        (["target=post_norm"], StoreMismatch, "no target called 'post_norm'"),
        (["views=5"], StoreMismatch, "has 2 views of each image, the recipe asks for 5"),
        (["batch_size=21"], ConfigError, "has 20 valid images, fewer than one batch of 21"),
        (["optimizer.warmup_epochs=3.5"], ConfigError, r"warm-up of 10 steps does not fit into a training of 9"),
    ],
)
def test_a_recipe_that_does_not_fit_the_store_is_refused(data, tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        train(data, tmp_path / "run", override(PRETRAIN, settings))
    assert not (tmp_path / "run").exists()


def test_an_unsealed_store_is_refused(data, tmp_path):
    manifest = dataclasses.replace(read_manifest(data / "store"), state="building", root_digest=None)
    (tmp_path / "manifest.json").write_bytes(manifest.to_bytes())
    with pytest.raises(StoreIncomplete, match="extraction did not finish"):
        pretrain(tmp_path, tmp_path / "run", PRETRAIN, images=data / "images")


def test_changed_pixels_are_refused_by_name(data, tmp_path):
    images = make_photographs(tmp_path / "images", 20)
    changed = images / "class-1" / "003.png"
    changed.write_bytes((images / "class-1" / "005.png").read_bytes())
    with pytest.raises(PixelDrift, match=r"class-1/003.png.* is not the file that the teacher saw"):
        pretrain(data / "store", tmp_path / "run", PRETRAIN, images=images)


def test_a_missing_image_is_refused_before_training(data, tmp_path):
    images = make_photographs(tmp_path / "images", 20)
    (images / "class-1" / "003.png").unlink()
    with pytest.raises(SourceError, match=r"1 of the 20 images .* the first is 'class-1/003.png'"):
        pretrain(data / "store", tmp_path / "run", PRETRAIN, images=images)


def test_the_plan_says_what_the_run_then_does(data, tmp_path):
    planned = plan(PRETRAIN, Store(data / "store"), tmp_path / "run")
    assert (planned.steps, planned.steps_per_epoch, planned.resume_step) == (STEPS, 3, 0)
    train(data, tmp_path / "run", stop_after=4)
    assert plan(PRETRAIN, Store(data / "store"), tmp_path / "run").resume_step == 4
    weights = {name: t for name, t in last_weights(tmp_path / "run").items() if name.startswith("exp_avg/")}
    assert planned.parameters == sum(tensor.numel() for tensor in weights.values())


def test_the_head_is_as_wide_as_the_stored_latents(data):
    assert fit_recipe(PRETRAIN, Store(data / "store")).model.target_width == 6


WITHOUT_A_TEACHER = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "open_clip" or name.startswith(("open_clip.", "caev2.extract")):
            raise ImportError(f"{name} must not be imported")
sys.meta_path.insert(0, Refuse())
from pathlib import Path
from caev2.pretrain.run import pretrain
from tests.made_up_pretrain import PRETRAIN
pretrain(sys.argv[1] + "/store", sys.argv[2], PRETRAIN, images=sys.argv[1] + "/images")
assert not [name for name in sys.modules if name.startswith(("open_clip", "caev2.extract"))]
"""


def test_pretrain_runs_where_no_teacher_can_be_imported(data, tmp_path):
    command = [sys.executable, "-c", WITHOUT_A_TEACHER, str(data), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    train(data, tmp_path / "here")
    # another process, perhaps with other threads: the same batches, the same loss up to rounding
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "here"), rtol=1e-4)


def test_too_little_memory_is_told_with_the_ways_out():
    recipe = dataclasses.replace(PRETRAIN, accumulate=2)
    with (
        pytest.raises(ConfigError, match=rf"for {recipe.batch_size // 2} images at once .*--set accumulate=4"),
        told_when_memory_is_short(recipe, Company(ALONE)),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_ranks_that_were_given_one_gpu_are_refused():
    assert device_of(Ranks(3, 4, 3, 4), "cuda") == "cuda:3"
    with pytest.raises(ConfigError, match=r"4 ranks were given cuda:0, all the same"):
        device_of(Ranks(3, 4, 3, 4), "cuda:0")
