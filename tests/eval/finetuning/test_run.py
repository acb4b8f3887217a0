"""Fine-tuning: what is easy to see is learnt, an interruption changes nothing, and what cannot be is refused."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from caev2.errors import CheckpointError, ConfigError, OutputError, SourceError, TrainingDiverged
from caev2.eval.finetuning.model import tunable_encoder
from caev2.eval.finetuning.recipes import (
    AugmentationSettings,
    FinetuneRecipe,
    MixSettings,
    TunedModelSettings,
    TuningOptimizerSettings,
)
from caev2.eval.finetuning.run import finetune, finetune_and_score, open_parts
from caev2.eval.finetuning.starts import Start, from_teacher
from caev2.eval.result import ProbeResult
from caev2.pretrain.student.model import build
from caev2.pretrain.telling.log import read_log
from caev2.pretrain.together.signals import Interrupted
from caev2.pretrain.weights.checkpoint import list_checkpoints, read_checkpoint
from caev2.progress import Silent
from tests.made_up import PRETRAIN

SIZES = PRETRAIN.model
RECIPE = FinetuneRecipe(
    model=TunedModelSettings(drop_path=0.2),
    optimizer=TuningOptimizerSettings(lr=1e-2, warmup_epochs=0.5),
    augmentation=AugmentationSettings(crop_scale=(0.5, 1.0), auto_augment="rand-m3-mstd0.5-inc1"),
    mix=MixSettings(smoothing=0.1),
    epochs=3,
    batch_size=10,
    seed=1,
)
PLAIN = dataclasses.replace(
    RECIPE,
    augmentation=AugmentationSettings(crop_scale=(0.5, 1.0), auto_augment=None, erase=0.0),
    mix=MixSettings(mixup=0.0, cutmix=0.0, smoothing=0.1),
    epochs=6,
)


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Reddish and bluish noise, 40 train and 21 val images; alike but for the colour."""
    random, place = np.random.default_rng(0), tmp_path_factory.mktemp("colours")
    for split, count in (("train", 40), ("val", 21)):
        for number in range(count):
            pixels = random.integers(0, 150, (36, 36, 3), dtype=np.uint8)
            pixels[..., 2 * (number % 2)] += 105
            folder = place / split / ("red", "blue")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return place


def start_of(model) -> Start:
    def open_it(settings: TunedModelSettings):
        return tunable_encoder(
            model.encoder,
            SIZES,
            image_px=settings.image_px,
            drop_path=settings.drop_path,
            position_bias=settings.position_bias,
        )

    return Start(role="random start", name="random start", open=open_it)


START = start_of(build(SIZES, 0))


def tune(images, out, recipe=RECIPE, start=START, **more) -> ProbeResult:
    return finetune(start, *open_parts(images, None), out, recipe, **more)


def weights_of(out) -> dict[str, torch.Tensor]:
    (checkpoint,) = list_checkpoints(out / "checkpoints")
    return read_checkpoint(checkpoint.path)[0]


def assert_same_weights(one, other):
    one, other = weights_of(one), weights_of(other)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="module")
def whole(colours, tmp_path_factory):
    """An uninterrupted fine-tuning, and its result."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, tune(colours, out, dataclasses.replace(RECIPE, ema_decay=0.9))


def test_a_visible_difference_is_learnt(colours, tmp_path):
    judged = finetune_and_score(START, colours, tmp_path / "out", PLAIN)
    assert judged.accuracy["finetune"].value == 1.0
    assert judged.per_class["finetune"] == (1.0, 1.0)
    assert (judged.role, judged.name, judged.crop_px, judged.resize_px) == ("random start", "random start", 32, 37)


def test_the_result_has_the_shape_of_a_probes_and_says_what_was_done(whole, colours):
    out, result = whole
    assert json.loads((out / "result.json").read_text()) == json.loads(json.dumps(result.mapping()))
    assert (result.train_images, result.val_images, result.classes) == (40, 21, ("blue", "red"))
    (judged,) = result.subjects
    assert set(judged.accuracy) == {"finetune", "finetune, weights averaged"}
    right = judged.accuracy["finetune"].value * 21
    assert right == pytest.approx(round(right))
    assert judged.bootstrap["finetune"].value == judged.accuracy["finetune"].value
    protocol = judged.protocol["finetune"]
    assert (protocol["epochs"], protocol["steps"], protocol["reported"]) == (3, 12, "last epoch")
    assert (protocol["position_bias"], protocol["drop_path"]) == (True, 0.2)
    assert result.settings["finetune"]["mix"]["mixup"] == 0.8
    assert result.settings["finetune"]["precision"] == "fp32"


def test_the_last_epoch_is_reported_and_the_best_one_says_how_it_was_chosen(whole):
    out, result = whole
    (judged,) = result.subjects
    for name, key in (("finetune", "accuracy"), ("finetune, weights averaged", "ema_accuracy")):
        history = [record[key] for record in read_log(out)]
        protocol = judged.protocol[name]
        assert len(history) == 3
        assert protocol["accuracy_by_epoch"] == history
        assert judged.accuracy[name].value == pytest.approx(history[-1])
        assert protocol["best_epoch"]["accuracy"] == max(history)
        assert "the reported images" in protocol["best_epoch"]["chosen_on"]


def test_the_same_again_is_the_same_to_the_last_bit_with_workers_too(whole, colours, tmp_path):
    out, result = whole
    recipe = dataclasses.replace(RECIPE, ema_decay=0.9, workers=1)
    again = tune(colours, tmp_path / "again", recipe)
    assert_same_weights(out, tmp_path / "again")
    assert again == result


class SignalAt(Silent):
    """Asks this process to leave after so many steps."""

    def __init__(self, steps: int):
        self.left = steps

    def advance(self, items: int, **figures: float | int) -> None:
        self.left -= items
        if items and self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("steps", [1, 4, 6])
def test_an_interruption_in_an_epoch_or_at_its_end_changes_nothing(whole, colours, tmp_path, steps):
    out, result = whole
    recipe = dataclasses.replace(RECIPE, ema_decay=0.9)
    with pytest.raises(Interrupted, match=f"Stopped at step {steps}"):
        tune(colours, tmp_path / "out", recipe, progress=SignalAt(steps))
    assert not (tmp_path / "out" / "result.json").exists()
    assert tune(colours, tmp_path / "out", recipe) == result
    assert_same_weights(out, tmp_path / "out")


def test_finished_work_is_judged_again_and_not_trained(whole, colours):
    out, result = whole
    before = weights_of(out)
    (out / "result.json").unlink()
    assert tune(colours, out, dataclasses.replace(RECIPE, ema_decay=0.9)) == result
    assert all(torch.equal(before[name], tensor) for name, tensor in weights_of(out).items())
    assert (out / "result.json").exists()


def test_parts_of_a_batch_teach_what_the_whole_batch_does(colours, tmp_path):
    for parts in (1, 2):
        tune(colours, tmp_path / str(parts), dataclasses.replace(RECIPE, accumulate=parts, epochs=1))
    one, other = weights_of(tmp_path / "1"), weights_of(tmp_path / "2")
    for name in (name for name in one if name.startswith("model/")):
        torch.testing.assert_close(one[name], other[name], atol=2e-4, rtol=1e-3)


def test_another_resolution_is_trained_and_judged_at(colours, tmp_path):
    recipe = dataclasses.replace(PLAIN, model=TunedModelSettings(image_px=48), epochs=1)
    (judged,) = tune(colours, tmp_path / "out", recipe).subjects
    assert (judged.crop_px, judged.resize_px) == (48, 55)


def test_the_demos_teacher_can_be_fine_tuned_too(colours, tmp_path):
    recipe = dataclasses.replace(PLAIN, epochs=1, optimizer=TuningOptimizerSettings(lr=1e-3, warmup_epochs=0.0))
    (judged,) = tune(colours, tmp_path / "out", recipe, from_teacher("demo")).subjects
    assert (judged.role, judged.name, judged.crop_px) == ("teacher", "teacher demo", 64)
    protocol = judged.protocol["finetune"]
    assert (protocol["position_bias"], protocol["drop_path"]) == (False, 0.0)


def test_crops_that_reach_beyond_the_image_are_refused(colours, tmp_path):
    with pytest.raises(ConfigError, match="short side is 20 pixels have no crop of 32"):
        tune(colours, tmp_path / "out", dataclasses.replace(RECIPE, resize_px=20))


def test_other_work_is_not_gone_on_with(whole, colours, tmp_path):
    out, _ = whole
    with pytest.raises(CheckpointError, match=r"its recipe\.epochs is 3, this command asks for 4"):
        tune(colours, out, dataclasses.replace(RECIPE, ema_decay=0.9, epochs=4))
    with pytest.raises(CheckpointError, match=r"its start\.digest is"):
        tune(colours, out, dataclasses.replace(RECIPE, ema_decay=0.9), start_of(build(SIZES, 1)))
    with pytest.raises(CheckpointError, match="there already, at step 12"):
        tune(colours, out, dataclasses.replace(RECIPE, ema_decay=0.9), resume="never")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(OutputError, match="is a run of pre-training"):
        tune(colours, tmp_path)


def test_a_damaged_identity_is_not_taken_for_another_one(colours, tmp_path):
    tune(colours, tmp_path, dataclasses.replace(RECIPE, epochs=1))
    content = json.loads((tmp_path / "finetune.json").read_text())
    assert content["model"]["heads"] == SIZES.heads
    del content["model"]  # as it was before sizes were recorded: the same work still
    (tmp_path / "finetune.json").write_text(json.dumps(content))
    tune(colours, tmp_path, dataclasses.replace(RECIPE, epochs=1))
    content["recipe"]["seed"] = 9
    (tmp_path / "finetune.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="damaged or was edited"):
        tune(colours, tmp_path, dataclasses.replace(RECIPE, epochs=1))


def broken(change) -> Start:
    model = build(SIZES, 0)
    with torch.no_grad():
        change(model.encoder)
    return start_of(model)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda encoder: encoder.norm.weight.fill_(float("nan")), "not finite"),
        (lambda encoder: encoder.norm.weight.zero_(), "have collapsed"),
    ],
    ids=["not finite", "collapsed"],
)
def test_weights_that_say_nothing_are_refused_before_anything_is_written(colours, tmp_path, change, said):
    with pytest.raises(CheckpointError, match=said):
        tune(colours, tmp_path / "out", start=broken(change))
    assert not (tmp_path / "out").exists()


def test_images_and_recipes_that_do_not_fit_are_refused_before_weights_are_loaded(colours, tmp_path):
    def never(settings):
        raise AssertionError("weights were loaded before what could be refused was refused")

    start = Start(role="student", name="student", open=never)
    for recipe, said in (
        (dataclasses.replace(RECIPE, batch_size=64), "There are 40 training images, fewer than one batch of 64"),
        (dataclasses.replace(RECIPE, accumulate=3), "not cut into 3 equal parts"),
        (dataclasses.replace(RECIPE, batch_size=9), "groups of 9 that are mixed in pairs"),
        (dataclasses.replace(RECIPE, optimizer=TuningOptimizerSettings(warmup_epochs=50.0)), "does not fit"),
    ):
        with pytest.raises(ConfigError, match=said):
            tune(colours, tmp_path / "out", recipe, start)
    train, val = open_parts(colours, None)
    one_class = dataclasses.replace(train, labels=(0,) * len(train))
    with pytest.raises(SourceError, match="needs images of two classes"):
        finetune(start, one_class, val, tmp_path / "out", RECIPE)
    assert not (tmp_path / "out").exists()


def test_parts_may_lie_apart_and_must_have_the_same_classes(colours, tmp_path):
    train, val = open_parts(colours / "train", colours / "val")
    assert (len(train), len(val), train.classes) == (40, 21, ("blue", "red"))
    (tmp_path / "green").mkdir()
    Image.new("RGB", (36, 36)).save(tmp_path / "green" / "0.png")
    with pytest.raises(SourceError, match="in one of them only"):
        open_parts(colours / "train", tmp_path)


def test_a_loss_that_is_not_finite_ends_it_and_keeps_the_epoch_before(colours, tmp_path):
    recipe = dataclasses.replace(
        PLAIN, optimizer=TuningOptimizerSettings(lr=1e38, warmup_epochs=0.0, weight_decay=0.0), epochs=2
    )
    with pytest.raises((TrainingDiverged, CheckpointError), match="finite"):
        tune(colours, tmp_path / "out", recipe)
    assert list_checkpoints(tmp_path / "out" / "checkpoints") == []
    assert not (tmp_path / "out" / "result.json").exists()
