"""Steps whose loss or gradients are not finite: skipped, recorded, and the third in a row ends the run."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from caev2.errors import CheckpointDamaged, CheckpointError, TrainingDiverged
from caev2.pretrain.learning.kept_step import FORMAT, keep_step, read_step
from caev2.pretrain.learning.replay import replay_step
from caev2.pretrain.learning.step import Objective
from caev2.pretrain.plan import fit_recipe, row_order
from caev2.pretrain.run import pretrain
from caev2.pretrain.student.model import build
from caev2.pretrain.telling.log import read_log
from caev2.pretrain.weights.checkpoint import latest_checkpoint
from caev2.pretrain.weights.tensor_file import read_tensors
from caev2.recipe import override
from caev2.store.reader import Store
from tests.made_up_pretrain import PRETRAIN
from tests.pretrain.test_resume import Listener, flip_a_bit
from tests.pretrain.training import STEPS, assert_equal_runs, files_of, last_weights, train

HOT = override(PRETRAIN, ["optimizer.lr=1e30", "optimizer.warmup_epochs=0.0", "optimizer.clip_norm=none"])


class BrokenRows(Store):
    """A store some of whose rows come out of memory broken: no codec writes what is not finite."""

    def __init__(self, path: Path, steps: range | list[int]):
        super().__init__(path)
        order = row_order(PRETRAIN, self)
        self.broken = {(order.view_of(step), int(order.rows_of(step)[1])) for step in steps}

    def read_into(self, rows, target, view, images, *, check=True):
        super().read_into(rows, target, view, images, check=check)
        for place, image in enumerate(images):
            if (view, int(image)) in self.broken:
                rows[place, 3, 2] = np.nan


def train_broken(data: Path, run: Path, steps, recipe=PRETRAIN, **options):
    return pretrain(BrokenRows(data / "store", steps), run, recipe, images=data / "images", **options)


def skipped_steps(run: Path) -> list[int]:
    return [record["step"] for record in read_log(run) if not record["applied"]]


def test_a_step_that_is_not_finite_leaves_the_weights_and_is_recorded_and_told(data, tmp_path):
    run, progress = tmp_path / "run", Listener()
    result = train_broken(
        data, run, [4], dataclasses.replace(PRETRAIN, log_steps=1000), progress=progress, stop_after=5
    )
    train(data, tmp_path / "before", stop_after=4)
    before, after = last_weights(tmp_path / "before"), last_weights(run)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert (result.steps_computed, result.steps_skipped) == (5, 1)
    assert skipped_steps(run) == [4]
    assert progress.heard == [
        "Step 4 was skipped: loss nan, gradient norm nan. The weights are as before it. 1 in a row; a run stops at 3."
    ]
    assert result.loss is not None
    assert np.isfinite(result.loss)


def test_the_log_is_json_also_where_numbers_are_not_finite(data, tmp_path):
    train_broken(data, tmp_path / "run", [4])

    def refuse(word: str):
        raise AssertionError(f"{word} is no JSON")

    for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines():
        record = json.loads(line, parse_constant=refuse)
        assert (record["loss"] is None) == (record["applied"] is False)


def test_a_run_that_is_stopped_anywhere_around_skipped_steps_ends_in_the_same_weights(data, tmp_path):
    train_broken(data, tmp_path / "whole", [3, 4])
    assert skipped_steps(tmp_path / "whole") != []
    for stops in ([3], [4], [5], [6], [4, 5], [3, 4, 5, 6]):
        run = tmp_path / "-".join(map(str, stops))
        for stop in stops:
            train_broken(data, run, [3, 4], stop_after=stop)
        train_broken(data, run, [3, 4])
        assert_equal_runs(run, tmp_path / "whole")
    train(data, tmp_path / "sound")
    sound, whole = last_weights(tmp_path / "sound"), last_weights(tmp_path / "whole")
    assert not torch.equal(sound["model/head.linear.weight"], whole["model/head.linear.weight"])


@pytest.mark.parametrize("stops", [[], [3], [4], [5], [4, 5]])
def test_the_third_step_in_a_row_stops_a_run_wherever_it_was_resumed(data, tmp_path, stops):
    run = tmp_path / "run"
    for stop in stops:
        train_broken(data, run, [3, 4, 5], stop_after=stop)
    with pytest.raises(
        TrainingDiverged, match=r"not finite in 3 steps in a row, up to step 5\. `caev2 pretrain --replay"
    ):
        train_broken(data, run, [3, 4, 5])
    assert skipped_steps(run) == [3, 4, 5]
    assert latest_checkpoint(run / "checkpoints").step == max([3, *stops])
    kept = read_step(run / "diverged-step-5.safetensors")
    before = last_weights(run)
    assert all(torch.equal(before[f"model/{name}"], tensor) for name, tensor in kept.weights.items())


def test_a_run_that_diverged_goes_on_once_its_batches_are_sound_again(data, tmp_path):
    with pytest.raises(TrainingDiverged):
        train_broken(data, tmp_path / "run", [3, 4, 5])
    train(data, tmp_path / "run")
    train(data, tmp_path / "whole")
    assert_equal_runs(tmp_path / "run", tmp_path / "whole")


def test_what_is_kept_is_the_batch_and_the_replay_names_the_image(data, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(TrainingDiverged):
        train_broken(data, run, [3, 4, 5])
    before = files_of(run)
    path = run / "diverged-step-5.safetensors"
    kept, store = read_step(path), Store(data / "store")
    order = row_order(PRETRAIN, store)
    np.testing.assert_array_equal(kept.batch.rows.numpy(), order.rows_of(5))
    broken = BrokenRows(data / "store", [3, 4, 5]).read_stored("projected", order.view_of(5), order.rows_of(5))
    np.testing.assert_array_equal(kept.batch.targets.numpy(), broken)
    assert kept.batch.crops.shape == (6, 32, 32, 3)
    replayed = replay_step(path)
    assert not replayed.finite
    assert np.isnan(replayed.loss)
    assert replayed.first_not_finite == f"targets of image {order.rows_of(5)[1]}"
    assert np.isnan(replayed.recorded["grad_norm"])
    assert files_of(run) == before


def test_weights_that_are_not_finite_are_named(data, tmp_path):
    with pytest.raises(TrainingDiverged, match="not finite in 3 steps in a row"):
        train(data, tmp_path / "run", HOT)
    replayed = replay_step(next((tmp_path / "run").glob("diverged-step-*.safetensors")))
    assert not replayed.finite
    assert replayed.first_not_finite.startswith(("weights ", "output of encoder"))


@pytest.fixture
def healthy(data, tmp_path):
    """A student, and a function that keeps one step of it, whatever was done to its weights meanwhile."""
    store = Store(data / "store")
    recipe = fit_recipe(PRETRAIN, store)
    with pytest.raises(TrainingDiverged):
        train_broken(data, tmp_path / "run", [3, 4, 5])
    batch = read_step(tmp_path / "run" / "diverged-step-5.safetensors").batch
    targets = torch.from_numpy(store.read_stored("projected", batch.view, batch.rows.numpy()))
    model = build(recipe.model, seed=0)

    def keep(figures: dict[str, float], precision: str = "fp32", accumulate: int = 1) -> Path:
        path = tmp_path / "kept.safetensors"
        sound = dataclasses.replace(batch, targets=targets)
        objective = Objective(model, precision=precision)
        latents = targets.float()
        keep_step(path, objective, sound, latents, device="cpu", figures=figures, accumulate=accumulate)
        return path

    return model, keep


def test_a_replay_of_a_finite_step_says_so_and_has_the_same_numbers_each_time(healthy):
    _, keep = healthy
    path = keep({"loss": 1.5})
    once, again = replay_step(path), replay_step(path)
    assert once == again
    assert once.finite
    assert once.first_not_finite is None
    assert 0 < once.loss < 2
    assert once.recorded == {"device": "cpu", "loss": 1.5}
    assert once.grad_norm == pytest.approx(sum(norm**2 for norm in once.grad_norms.values()) ** 0.5, rel=1e-5)


def test_a_replay_takes_the_batch_in_the_parts_of_the_run(healthy):
    model, keep = healthy
    shown = []
    hook = nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: shown.append(len(inputs[0])) if type(module) is type(model) else None
    )
    whole, parts = replay_step(keep({})), replay_step(keep({}, accumulate=3))
    hook.remove()
    assert shown == [6, 2, 2, 2]
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert parts.cosine_masked == pytest.approx(whole.cosine_masked, rel=1e-4)
    assert parts.grad_norm == pytest.approx(whole.grad_norm, rel=1e-4)


def test_a_replay_computes_in_the_precision_of_the_run(healthy):
    _, keep = healthy
    exact, rounded = replay_step(keep({})), replay_step(keep({}, precision="bf16"))
    assert (exact.precision, rounded.precision) == ("fp32", "bf16")
    assert rounded.finite
    assert rounded.loss != exact.loss
    assert rounded.loss == pytest.approx(exact.loss, rel=0.02)


@pytest.mark.gpu
def test_a_step_of_a_gpu_is_kept_and_replayed_there_and_here(healthy, tmp_path):
    model, keep = healthy
    kept = read_step(keep({}))
    path = tmp_path / "gpu.safetensors"
    batch, latents = kept.batch.to("cuda"), kept.latents.cuda()
    keep_step(path, Objective(model.cuda()), batch, latents, device="cuda", figures={})
    assert read_step(path).generators.keys() == {"cpu", "cuda"}
    there, here = replay_step(path, "cuda"), replay_step(path)
    assert there.finite
    assert there.loss == pytest.approx(here.loss, rel=1e-2)  # in TF32 there


def test_the_module_where_numbers_overflow_first_is_named(healthy):
    model, keep = healthy
    with torch.no_grad():
        model.regressor.blocks[1].mlp.fc2.weight.fill_(3e38)
    assert replay_step(keep({})).first_not_finite == "output of regressor.blocks.1.mlp.fc2"


def test_the_gradient_that_overflows_first_under_a_finite_loss_is_named(healthy):
    model, keep = healthy
    with torch.no_grad():  # the prediction is tiny, so a cosine's gradient is large, and so are the last weights
        model.head.linear.weight.copy_(model.head.linear.weight.sign() * 3e38)
        model.head.norm.weight.fill_(1e-44)
    replayed = replay_step(keep({}))
    assert np.isfinite(replayed.loss)
    assert not replayed.finite
    assert replayed.first_not_finite in ("gradient of head.norm.weight", "gradient of head.norm.bias")


def test_a_norm_that_overflows_where_no_gradient_does_is_named(healthy):
    model, keep = healthy
    with torch.no_grad():
        model.head.linear.weight.mul_(1e-30)
        model.head.norm.weight.mul_(1e30)
    replayed = replay_step(keep({}))
    assert np.isfinite(replayed.loss)
    assert not replayed.finite
    assert replayed.first_not_finite == "norm of all gradients"


def test_what_is_no_kept_step_is_refused(healthy, data, tmp_path):
    _, keep = healthy
    path = keep({})
    with pytest.raises(CheckpointError, match=r"There is no file .*absent"):
        replay_step(tmp_path / "absent")
    checkpoint = latest_checkpoint(tmp_path / "run" / "checkpoints").path
    with pytest.raises(
        CheckpointError, match=rf"is no kept step \(its format is 'caev2 checkpoint 1', not '{FORMAT}'\)"
    ):
        replay_step(checkpoint)
    assert read_tensors(path, FORMAT)[1]["precision"] == "fp32"
    flip_a_bit(path)
    with pytest.raises(CheckpointDamaged, match="is damaged or no kept step"):
        replay_step(path)
    assert train(data, tmp_path / "other").steps == STEPS
