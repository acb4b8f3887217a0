"""What a dry run finds out before a run begins, against what the run then does."""

import dataclasses
import shutil

import pytest
import torch

from caev2.commands.forecast import as_words
from caev2.errors import ConfigError
from caev2.pretrain.foresight.cost import TrainingMemory, estimate_memory
from caev2.pretrain.foresight.forecast import Forecast, advise, checkpoint_bytes, forecast, free_memory
from caev2.pretrain.foresight.rehearsal import Rehearsal, made_up_batch, rehearse
from caev2.pretrain.plan import fit_recipe
from caev2.pretrain.student.model import build
from caev2.pretrain.student.parameters import adamw
from caev2.pretrain.student.sizes import SIZES
from caev2.pretrain.weights.checkpoint import save_checkpoint
from caev2.store.reader import Store
from tests.made_up_pretrain import PRETRAIN

MEMORY = estimate_memory(PRETRAIN.model, PRETRAIN.mask.count, "fp32")
TIMED = Rehearsal(batch_size=4, seconds=(0.5, 0.4, 0.8))


class Listening:
    """Somebody who keeps what is said and warned of."""

    def __init__(self):
        self.said, self.warned = [], []

    def start(self, what: str, total: int, done: int = 0) -> None: ...

    def advance(self, items: int, **figures: float | int) -> None: ...

    def finish(self) -> None: ...

    def say(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.warned.append(message)


def look(data, tmp_path, progress=None, devices=1, **changes) -> Forecast:
    recipe, store, run = dataclasses.replace(PRETRAIN, **changes), Store(data / "store"), tmp_path / "run"
    return forecast(recipe, store, run, device="cpu", devices=devices, progress=progress, budget_s=0.5)


def test_steps_are_measured_and_nothing_is_written(data, tmp_path):
    found = look(data, tmp_path)
    assert found.rehearsal is not None
    assert found.rehearsal.batch_size in (1, 2, 4, 6)  # doubled up to the recipe's six
    assert found.rehearsal.images == found.rehearsal.batch_size * len(found.rehearsal.seconds)
    assert 1 <= len(found.rehearsal.seconds) <= 20
    assert found.memory_bytes > found.memory.model_bytes
    assert found.free_disk_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert found.mfu_percent is None  # nobody knows the peak of a CPU
    assert list(tmp_path.iterdir()) == []


def test_hours_are_what_is_left_at_the_measured_rate(data, tmp_path):
    found = dataclasses.replace(look(data, tmp_path), rehearsal=TIMED, peak_flops=1e12)
    left = found.steps_left * found.batch_size / 3600
    assert found.hours() == (pytest.approx(left / 10), pytest.approx(left / 8), pytest.approx(left / 5))
    assert found.is_noisy
    steady = dataclasses.replace(found, rehearsal=Rehearsal(batch_size=4, seconds=(0.5, 0.49, 0.51)))
    assert not steady.is_noisy
    assert found.mfu_percent == pytest.approx(100 * 3 * 2 * found.cost.total * 8 / 1e12)


def test_several_devices_have_a_share_of_the_images_and_of_the_hours(data, tmp_path):
    found = dataclasses.replace(look(data, tmp_path, devices=3), rehearsal=TIMED)
    alone = dataclasses.replace(look(data, tmp_path), rehearsal=TIMED)
    assert (found.batch_size, found.images_at_once) == (6, 2)
    assert found.hours() == pytest.approx([hours / 3 for hours in alone.hours()])
    words = as_words(found)
    assert "for 2 images at once on each in fp32" in words["memory"]
    assert "on 3 such devices that lose nothing by sharing" in words["time"]
    with pytest.raises(ConfigError, match="not cut into 4 ranks"):
        look(data, tmp_path, devices=4)


def test_the_average_of_weights_takes_memory_too(data, tmp_path):
    found, plain = look(data, tmp_path, ema_decay=0.99), look(data, tmp_path)
    assert found.memory.model_bytes - plain.memory.model_bytes == 4 * found.plan.parameters


def test_the_words_say_how_much_was_measured_and_how_sure_that_is(data, tmp_path):
    found = look(data, tmp_path)
    noisy, steady, single = (
        as_words(dataclasses.replace(found, rehearsal=Rehearsal(batch_size=4, seconds=seconds)))
        for seconds in ((0.5, 0.4, 0.8), (0.5, 0.5, 0.5), (0.5,))
    )
    assert noisy["speed"].startswith("5 to 10 images/s, measured on 12 images, made up: 3 steps of 4; not compiled")
    assert " to " in noisy["time"]
    assert steady["speed"].startswith("8 images/s, measured on 12 images")
    assert " to " not in steady["time"]
    assert "1 step of 4, too few to tell how much they vary" in single["speed"]
    nothing = as_words(dataclasses.replace(found, rehearsal=None))
    assert nothing["speed"] == "not measured: there is no memory for a single image"
    assert nothing["time"] == "not known"


def test_what_has_no_room_is_not_measured_and_not_guessed(data, tmp_path):
    found = dataclasses.replace(look(data, tmp_path), rehearsal=None, peak_flops=1e12)
    assert found.hours() is None
    assert found.mfu_percent is None
    assert not found.is_noisy
    assert rehearse(PRETRAIN, "fp32", "cpu", MEMORY, free_bytes=1000, most=6) is None


def test_a_rehearsal_takes_no_more_images_than_memory_allows():
    one = TrainingMemory(model_bytes=0, activation_bytes_per_image=100)
    found = rehearse(PRETRAIN, "fp32", "cpu", one, free_bytes=300, most=6, budget_s=2.0)
    assert found is not None
    assert found.batch_size == 2


def test_a_rehearsal_reaches_the_batch_of_the_recipe_where_there_is_time():
    found = rehearse(PRETRAIN, "fp32", "cpu", MEMORY, free_bytes=10**12, most=6)
    assert found is not None
    assert (found.batch_size, len(found.seconds)) == (6, 20)


def test_a_rehearsal_ends_though_a_single_step_takes_longer_than_all_of_it_may():
    found = rehearse(PRETRAIN, "fp32", "cpu", MEMORY, free_bytes=10**12, most=6, budget_s=0.0)
    assert found is not None
    assert (found.batch_size, len(found.seconds)) == (1, 1)


def test_the_advice_makes_a_batch_fit(data, tmp_path):
    found, recipe = look(data, tmp_path), fit_recipe(PRETRAIN, Store(data / "store"))
    memory = found.memory
    assert found.images_at_once == 6
    room = dataclasses.replace(found, free_memory_bytes=memory.of_batch(3) + 10)
    assert advise(room, recipe) == "Give --set accumulate=2."
    less = dataclasses.replace(found, free_memory_bytes=memory.of_batch(1) - 10)
    assert advise(less, recipe).startswith("Give --set accumulate=")
    assert advise(less, recipe).endswith(" and --set recompute_activations=true.")
    none = dataclasses.replace(found, free_memory_bytes=memory.model_bytes)
    assert "take another device" in advise(none, recipe)


def test_a_student_that_does_not_fit_is_warned_of_and_not_built(data, tmp_path):
    listening = Listening()
    look(data, tmp_path, listening)
    assert listening.warned == []
    assert listening.said == ["pretrain: timing steps on cpu"]
    huge = dataclasses.replace(PRETRAIN.model, width=16384, heads=64, depth=48)
    found = look(data, tmp_path, listening, model=huge)
    assert found.rehearsal is None
    memory, disk = listening.warned
    assert "Training 6 images at once takes about" in memory
    assert "take another device" in memory
    assert "2 checkpoints and the one that is being written take" in disk


def test_made_up_batches_have_the_shapes_of_the_recipe_and_the_same_numbers_each_time():
    batch, again = made_up_batch(PRETRAIN, 3), made_up_batch(PRETRAIN, 3)
    model = PRETRAIN.model
    assert batch.crops.shape == (3, model.image_px, model.image_px, 3)
    assert batch.masked.shape == (3, PRETRAIN.mask.count)
    together = torch.cat([batch.visible, batch.masked], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(model.patches).expand(3, -1))
    for name, tensor in batch.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name
    assert batch.crops.float().std() > 50  # not zeros, which some hardware multiplies faster


def test_a_checkpoint_is_as_large_as_told(tmp_path):
    model = build(PRETRAIN.model, 0)
    optimizer = adamw(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    written = save_checkpoint(tmp_path, model, optimizer, step=1, fingerprint="", keep_last=1)
    tables = 40_000  # names, types, shapes and places of 200 tensors
    assert 0 < written.path.stat().st_size - checkpoint_bytes(PRETRAIN) < tables


def test_free_memory_of_a_machine_is_less_than_all_of_it():
    everything = torch.iinfo(torch.int64).max
    assert 0 < free_memory("cpu") < everything
    assert free_memory("cpu") > estimate_memory(SIZES["tiny"], 30, "fp32").of_batch(1)
