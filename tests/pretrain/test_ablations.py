"""The switches of ablations: each changes what it says, and nothing else that enters a step."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from caev2.errors import CheckpointError, ConfigError
from caev2.eval.subjects import find_checkpoint, load_student
from caev2.pretrain.learning.decode import TargetDecoder
from caev2.pretrain.learning.lesson import store_lesson
from caev2.pretrain.learning.objective import LossSettings
from caev2.pretrain.learning.step import Objective
from caev2.pretrain.learning.target_norm import TargetForm, fit_whitening
from caev2.pretrain.student.model import build
from caev2.pretrain.supply.batches import Batch
from caev2.pretrain.telling.log import read_log
from caev2.pretrain.together.ranks import ALONE
from caev2.pretrain.weights.checkpoint import latest_checkpoint
from caev2.progress import Silent
from caev2.recipe import override
from caev2.store.reader import Store
from tests.made_up_pretrain import PRETRAIN
from tests.pretrain.training import last_weights, losses, train

STEPS = (0, 1, 3, 8)
"""Of all three epochs."""


def what_enters(data, settings: list[str]) -> dict[str, Any]:
    """All that decides a training, in parts that a switch may name."""
    recipe = override(PRETRAIN, settings)
    lesson = store_lesson(
        Store(data / "store"), recipe, images=data / "images", device="cpu", ranks=ALONE, progress=Silent()
    )
    student, batches = build(lesson.recipe.model, recipe.seed), [lesson.batches.batch_of(step) for step in STEPS]
    objective, fixed = Objective(student, recipe.loss, lesson.form), torch.Generator().manual_seed(0)
    latents = torch.randn(6, 17, lesson.recipe.model.target_width, generator=fixed)
    weights = student.state_dict()
    return {
        **{part: {k: v for k, v in weights.items() if k.startswith(part)} for part in ("encoder", "regressor")},
        "head": {k: v for k, v in weights.items() if k.startswith(("head", "projection"))},
        "rows": [batch.rows for batch in batches],
        "views": [batch.view for batch in batches],
        "masks": [(batch.visible, batch.masked) for batch in batches],
        "kept of encoder": [batch.keep[:4] for batch in batches],
        "kept of regressor": [batch.keep[4:] for batch in batches],
        "crops": [batch.crops for batch in batches],
        "targets": [batch.targets for batch in batches],
        "form": objective.form(latents),
        "loss": (recipe.loss.distance, recipe.loss.shares(10, 6)),
        "schedule": dataclasses.replace(recipe.optimizer),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


SWITCHES = {
    "loss.class_weight=0": {"loss"},
    "loss.visible_weight=0": {"loss"},
    "loss.masked_weight=0": {"loss"},
    "loss.masked_weight=2.5": {"loss"},
    "loss.average=group_mean": {"loss"},
    "loss.distance=mse": {"loss", "form"},
    "loss.distance=smooth_l1": {"loss", "form"},
    "loss.distance=l1": {"loss", "form"},
    "loss.target_norm=layer_norm": {"form"},
    "loss.target_norm=whiten": {"form"},
    "mask.kind=random": {"masks"},
    "mask.count=5": {"masks"},
    "mask.min_block_patches=3": {"masks"},
    "model.regressor_depth=1": {"regressor", "kept of regressor"},
    "model.regressor_width=24": {"regressor", "head"},
    "model.regressor_depth=0 loss.masked_weight=0": {"regressor", "kept of regressor", "loss"},
    "views=1": {"views", "crops", "targets"},
    "student_jitter=0.4": {"crops"},
    "model.drop_path=0.2": {"kept of encoder", "kept of regressor"},
    "ema_decay=0.9": set(),
    "optimizer.lr=1e-3": {"schedule"},
}


@pytest.mark.parametrize("settings", SWITCHES)
def test_a_switch_changes_what_it_says_and_nothing_else(data, settings):
    published, changed = what_enters(data, []), what_enters(data, settings.split())
    assert {part for part in published if not same(published[part], changed[part])} == SWITCHES[settings]


@pytest.mark.parametrize("settings", SWITCHES)
def test_every_switch_makes_another_run_and_trains(data, tmp_path, settings):
    recipe = override(PRETRAIN, settings.split())
    train(data, tmp_path / "published", stop_after=2)
    train(data, tmp_path / "changed", recipe, stop_after=2)
    words = [(tmp_path / run / "run.json").read_text() for run in ("published", "changed")]
    assert words[0] != words[1]
    assert all(np.isfinite(loss) for _, loss in losses(tmp_path / "changed"))


def test_the_order_of_settings_does_not_matter():
    one = ["model.regressor_depth=0", "loss.masked_weight=0"]
    assert override(PRETRAIN, one) == override(PRETRAIN, reversed(one))


def test_a_weight_of_one_for_all_is_the_published_loss_and_older_runs_stay_theirs(data, tmp_path):
    train(data, tmp_path / "run", stop_after=2)
    explicit = override(PRETRAIN, ["loss.class_weight=1.0", "loss.average=token_mean", "student_jitter=0.0"])
    assert train(data, tmp_path / "run", explicit).steps == 9
    assert "loss" not in (tmp_path / "run" / "run.json").read_text()


@pytest.mark.parametrize("accumulate", [2, 3])
def test_parts_of_a_batch_one_after_another_are_the_batch(data, tmp_path, accumulate):
    train(data, tmp_path / "whole")
    train(data, tmp_path / "parts", dataclasses.replace(PRETRAIN, accumulate=accumulate))
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert [step for step, _ in whole] == [step for step, _ in parts]
    assert [loss for _, loss in parts] == pytest.approx([loss for _, loss in whole], rel=1e-5)


def test_activations_that_are_computed_again_are_the_same(data, tmp_path):
    train(data, tmp_path / "kept")
    train(data, tmp_path / "again", dataclasses.replace(PRETRAIN, recompute_activations=True))
    kept, again = last_weights(tmp_path / "kept"), last_weights(tmp_path / "again")
    assert all(torch.equal(tensor, again[name]) for name, tensor in kept.items())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("loss.class_weight=-1", "loss.class_weight is -1.0"),
        ("loss.class_weight=0 loss.visible_weight=0 loss.masked_weight=0", "All weights of the loss are 0"),
        ("model.regressor_depth=0", "nothing predicts the masked patches"),
        ("student_jitter=1", "student_jitter is 1.0"),
        ("ema_decay=1", "ema_decay is 1.0"),
        ("accumulate=4", "A batch of 6 images is not cut into 4 equal parts"),
        ("loss.distance=huber", "loss.distance cannot be 'huber'"),
    ],
)
def test_what_cannot_be_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        override(PRETRAIN, settings.split())


def a_batch(visible: int, masked: int) -> tuple[torch.Tensor, torch.Tensor, Batch]:
    """Latents, predictions, and which of them are masked."""
    chance = torch.Generator().manual_seed(1)
    tokens = 1 + visible + masked
    places = torch.stack([torch.randperm(tokens - 1, generator=chance) for _ in range(3)])
    return (
        torch.randn(3, tokens, 8, generator=chance),
        torch.randn(3, tokens, 8, generator=chance),
        (places[:, :visible].sort().values, places[:, visible:].sort().values),
    )


class Fixed(torch.nn.Module):
    """A student that predicts what it was given."""

    def __init__(self, predicted: torch.Tensor):
        super().__init__()
        self.predicted = torch.nn.Parameter(predicted)

    def forward(self, images, visible, masked, keep=None):
        return self.predicted


@pytest.mark.parametrize("average", ["token_mean", "group_mean"])
@pytest.mark.parametrize("distance", ["cosine", "mse", "smooth_l1", "l1"])
@pytest.mark.parametrize("target_norm", ["l2", "none", "layer_norm"])
def test_losses_are_what_their_names_say(average, distance, target_norm):
    latents, predicted, (visible, masked) = a_batch(9, 6)
    weights = (0.5, 1.0, 3.0)
    settings = LossSettings(
        distance=distance, average=average, target_norm=target_norm,
        class_weight=weights[0], visible_weight=weights[1], masked_weight=weights[2],
    )  # fmt: skip
    objective = Objective(Fixed(predicted), settings)
    found = objective(torch.zeros(3, 3, 4, 4), latents, visible, masked)

    form = {
        "l2": lambda x: x / x.norm(dim=-1, keepdim=True),
        "none": lambda x: x,
        "layer_norm": lambda x: (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True, unbiased=False),
    }[target_norm]
    distances = {
        "cosine": lambda f, t: 1 - functional.cosine_similarity(f, t, dim=-1),
        "mse": lambda f, t: (f - t).square().mean(-1),
        "smooth_l1": lambda f, t: functional.smooth_l1_loss(f, t, reduction="none").mean(-1),
        "l1": lambda f, t: (f - t).abs().mean(-1),
    }[distance]
    groups = [[], [], []]
    for image in range(3):
        order = [0, *(visible[image] + 1).tolist(), *(masked[image] + 1).tolist()]
        for place, token in enumerate(order):
            kind = 0 if place == 0 else 1 if place <= 9 else 2
            groups[kind].append(distances(predicted[image, place], form(latents[image, token])))
    means = [torch.stack(group).mean() for group in groups]
    sizes = (1, 9, 6) if average == "token_mean" else (1, 1, 1)
    expected = sum(w * s * m for w, s, m in zip(weights, sizes, means, strict=True)) / sum(
        w * s for w, s in zip(weights, sizes, strict=True)
    )
    torch.testing.assert_close(found.loss, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_tokens_without_weight_have_no_gradient_and_their_cosine_is_told_all_the_same(kind):
    latents, predicted, (visible, masked) = a_batch(9, 6)
    weights = {name: 0.0 if number == kind else 1.0 for number, name in enumerate(("class", "visible", "masked"))}
    settings = LossSettings(**{f"{name}_weight": weight for name, weight in weights.items()})
    student = Fixed(predicted)
    found = Objective(student, settings)(torch.zeros(3, 3, 4, 4), latents, visible, masked)
    found.loss.backward()
    parts = student.predicted.grad.split([1, 9, 6], dim=1)
    assert [bool(part.abs().sum() > 0) for part in parts] == [number != kind for number in range(3)]
    assert all(torch.isfinite(cosine) for cosine in found[1:])


def test_whitened_targets_have_mean_zero_and_covariance_one(data):
    store = Store(data / "store")
    decoder = TargetDecoder(store.decode_plan("projected"), tokens=17)
    rows = torch.from_numpy(store.read_stored("projected", 0, store.valid_images))
    latents = decoder(rows).double()
    whitened = TargetForm("whiten", fit_whitening(store, "projected", decoder))(latents)
    patches = whitened[:, 1:].reshape(-1, whitened.shape[-1]).double()
    covariance = (patches - patches.mean(0)).T @ (patches - patches.mean(0)) / len(patches)
    directions = torch.linalg.eigvalsh(covariance)
    assert patches.mean(0).abs().max() < 1e-3
    assert directions.max() == pytest.approx(1.0, abs=1e-2)
    assert torch.equal(TargetForm("none")(latents), latents)


def test_whitening_is_a_function_of_the_store_and_needs_one(data):
    store = Store(data / "store")
    decoder = TargetDecoder(store.decode_plan("projected"), tokens=17)
    once, again = (fit_whitening(store, "projected", decoder) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(once, again, strict=True))
    with pytest.raises(ConfigError, match="train from a store"):
        TargetForm("whiten")


def test_an_average_of_weights_is_kept_resumed_and_judged(data, tmp_path):
    recipe = dataclasses.replace(PRETRAIN, ema_decay=0.9)
    train(data, tmp_path / "whole", recipe)
    train(data, tmp_path / "stopped", recipe, stop_after=4)
    train(data, tmp_path / "stopped", recipe)
    train(data, tmp_path / "none")
    whole, stopped, none = (last_weights(tmp_path / run) for run in ("whole", "stopped", "none"))
    assert all(torch.equal(tensor, stopped[name]) for name, tensor in whole.items())
    assert all(torch.equal(tensor, whole[name]) for name, tensor in none.items())
    averaged = {name.removeprefix("ema/"): tensor for name, tensor in whole.items() if name.startswith("ema/")}
    student = open_average(tmp_path / "whole")
    assert averaged.keys() == student.keys()
    assert all(torch.equal(tensor, student[name]) for name, tensor in averaged.items())
    assert not torch.equal(averaged["head.linear.weight"], whole["model/head.linear.weight"])
    with pytest.raises(CheckpointError, match="holds no moving average"):
        open_average(tmp_path / "none")


def open_average(run: Path) -> dict[str, torch.Tensor]:
    identity, checkpoint = find_checkpoint(run)
    return load_student(identity, checkpoint.path, "cpu", averaged=True).state_dict()


def test_figures_of_a_judge_are_part_of_the_log(data, tmp_path):
    asked = []

    def judge(student):
        asked.append(student)
        return {"knn_percent": 50.0 + len(asked)}

    recipe = dataclasses.replace(PRETRAIN, knn_epochs=2, log_steps=100)
    train(data, tmp_path / "run", recipe, judge=judge)
    found = {record["step"]: record["knn_percent"] for record in read_log(tmp_path / "run") if "knn_percent" in record}
    assert found == {5: 51.0, 8: 52.0}
    train(data, tmp_path / "run", recipe, judge=judge)  # it is at its end, and was judged there
    assert len(asked) == 2
    train(data, tmp_path / "alone", dataclasses.replace(PRETRAIN, log_steps=100))
    judged, alone = last_weights(tmp_path / "run"), last_weights(tmp_path / "alone")
    assert all(torch.equal(tensor, judged[name]) for name, tensor in alone.items())


def test_what_was_learnt_is_saved_before_it_is_judged_and_the_judgement_is_made_up_for(data, tmp_path):
    recipe, run = dataclasses.replace(PRETRAIN, knn_epochs=2, checkpoint_epochs=2, ema_decay=0.5), tmp_path / "run"

    def stumble(student):
        raise ConfigError("the machine went away")

    with pytest.raises(ConfigError, match="went away"):
        train(data, run, recipe, judge=stumble)
    assert latest_checkpoint(run / "checkpoints").step == 6
    seen = []

    def judge(student):
        seen.append(student.head.linear.weight.detach().clone())
        return {"knn_percent": float(len(seen))}

    train(data, run, recipe, judge=judge)
    judged = [record for record in read_log(run) if "loss" not in record]
    assert judged == [
        {"step": 5, "epoch": 1, "knn_percent": 1.0, "ema_knn_percent": 2.0},
        {"step": 8, "epoch": 2, "knn_percent": 3.0, "ema_knn_percent": 4.0},
    ]
    averaged = open_average(run)["head.linear.weight"]
    assert torch.equal(seen[3], averaged)
    assert torch.equal(seen[2], last_weights(run)["model/head.linear.weight"])
