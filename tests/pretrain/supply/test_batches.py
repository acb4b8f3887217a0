"""How a batch is made, cut and sent."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from caev2.errors import ConfigError
from caev2.pretrain.learning.student_jitter import jitter_crops
from caev2.pretrain.plan import fit_recipe, row_order
from caev2.pretrain.supply.batch_memory import Recycled
from caev2.pretrain.supply.batches import Batch, Shard, StepBatches
from caev2.pretrain.supply.loading import load_adaptively, load_batches
from caev2.store.images import open_images
from caev2.store.pixels.replay import ViewReplay
from caev2.store.reader import Store
from tests.made_up_pretrain import PRETRAIN


@pytest.fixture
def batches(data) -> StepBatches:
    store = Store(data / "store")
    recipe = fit_recipe(PRETRAIN, store)
    return StepBatches(
        store=store, crops=ViewReplay(store, open_images(data / "images")), order=row_order(recipe, store),
        model=recipe.model, mask=recipe.mask, target=recipe.target, seed=0,
    )  # fmt: skip


class Page(torch.Tensor):
    """A tensor that tells whether it was pinned, which takes a GPU."""

    pinned = False

    def pin_memory(self):
        copy = self.clone()
        copy.pinned = True
        return copy


def test_the_data_loaders_pinning_reaches_every_tensor_of_a_batch(batches):
    batch = batches.batch_of(4)
    pages = Batch(**{name: getattr(batch, name) for name in batch.__dataclass_fields__} | {
        name: tensor.as_subclass(Page) for name, tensor in batch.tensors().items()
    })  # fmt: skip
    pinned = pin_memory(pages)
    assert (pinned.step, pinned.view, pinned.drifted) == (4, batch.view, None)
    assert pinned.tensors().keys() == {"rows", "crops", "targets", "visible", "masked", "keep"}
    for name, tensor in pinned.tensors().items():
        assert tensor.pinned, name
        assert torch.equal(tensor.as_subclass(torch.Tensor), batch.tensors()[name])


@pytest.mark.gpu
def test_batches_for_a_gpu_lie_in_pinned_memory(batches):
    for batch in load_adaptively(batches, range(2), 1, device="cuda"):
        assert all(tensor.is_pinned() for tensor in batch.tensors().values())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_is_a_function_of_its_step(batches, workers):
    for step, batch in zip(range(2, 7), load_adaptively(batches, range(2, 7), workers, device="cpu"), strict=True):
        alone = batches.batch_of(step)
        assert (batch.step, batch.epoch, batch.view) == (step, alone.epoch, alone.view)
        for name, tensor in alone.tensors().items():
            np.testing.assert_array_equal(batch.tensors()[name].numpy(), tensor.numpy())


@pytest.mark.parametrize("workers", [0, 1])
def test_shards_put_together_are_the_batch_of_one(batches, workers):
    shards = [dataclasses.replace(batches, shard=Shard(index, 3)) for index in range(3)]
    loaded = [list(load_batches(shard, range(4), workers)) for shard in shards]
    for step in range(4):
        whole = batches.batch_of(step).tensors()
        for name, tensor in whole.items():
            parts = [batch_steps[step].tensors()[name] for batch_steps in loaded]
            assert torch.equal(torch.cat(parts, dim=1 if name == "keep" else 0), tensor), name


def test_parts_of_a_batch_put_together_are_the_batch(batches):
    batch = batches.batch_of(3)
    parts = batch.split(3)
    assert [len(part.rows) for part in parts] == [2, 2, 2]
    for name, tensor in batch.tensors().items():
        assert torch.equal(torch.cat([part.tensors()[name] for part in parts], dim=1 if name == "keep" else 0), tensor)
    without = dataclasses.replace(batch, keep=None)
    assert all(part.keep is None for part in without.split(2))


@pytest.mark.parametrize("count", [4, 5, 7])
def test_a_batch_that_is_not_so_many_equal_parts_is_refused(batches, count):
    with pytest.raises(ConfigError, match=f"6 images is not cut into {count} equal parts"):
        dataclasses.replace(batches, shard=Shard(0, count))
    with pytest.raises(ConfigError, match="Give a batch_size that is"):
        batches.batch_of(0).split(count)


@pytest.mark.parametrize("place", [(2, 2), (-1, 2), (0, 0)])
def test_parts_that_are_none_are_refused(place):
    with pytest.raises(ConfigError, match="counted from 0"):
        Shard(*place)


def test_the_students_jitter_changes_its_crops_and_nothing_else(batches):
    plain, same = batches.batch_of(4), dataclasses.replace(batches, student_jitter=0.0).batch_of(4)
    jittered = dataclasses.replace(batches, student_jitter=0.4)
    first, again = jittered.batch_of(4), jittered.batch_of(4)
    for name, tensor in plain.tensors().items():
        assert torch.equal(same.tensors()[name], tensor)
        assert torch.equal(again.tensors()[name], first.tensors()[name])
        assert torch.equal(first.tensors()[name], tensor) == (name != "crops"), name
    changed = (first.crops != plain.crops).flatten(1).any(1)
    assert changed.all()


def test_the_students_jitter_is_another_one_in_every_step_for_every_row_and_seed():
    crop = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)

    def jittered(seed: int, epoch: int, step: int, row: int) -> bytes:
        copy = crop.copy()
        jitter_crops(copy, 0.4, seed, epoch, step, np.array([row]))
        return copy.tobytes()

    keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    assert len({jittered(*key) for key in keys}) == len(keys)


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_a_jitter_out_of_range_is_refused(batches, strength):
    with pytest.raises(ConfigError, match="student_jitter"):
        dataclasses.replace(batches, student_jitter=strength)


def test_a_batch_that_is_kept_is_not_written_over(batches):
    """Memory is used again only when nobody holds a tensor in it."""
    kept = [batches.batch_of(step) for step in range(6)]
    crops = kept[0].crops[1]
    wanted, address = crops.clone(), crops.data_ptr()
    for step, batch in enumerate(kept):
        assert torch.equal(batch.targets, batches.batch_of(step).targets)
    del kept, batch
    for step in range(6):
        batches.batch_of(step)
    assert torch.equal(crops, wanted)
    assert crops.data_ptr() == address


def test_memory_that_nobody_holds_is_used_again():
    memory = Recycled()
    first = memory.take(1000)
    address, view = first.data_ptr(), first[10:20].view(torch.float16)
    del first
    second = memory.take(1000)
    assert second.data_ptr() != address
    del view
    assert memory.take(1000).data_ptr() == address
    assert memory.take(500).data_ptr() != address
