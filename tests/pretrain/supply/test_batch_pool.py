"""Batches that workers lay into places of a pool: whole, in order, and never under somebody who still reads them."""

import dataclasses
import gc

import pytest
import torch

from caev2.pretrain.learning.lesson import store_lesson
from caev2.pretrain.supply import batch_pool
from caev2.pretrain.supply.batch_pool import BatchPool
from caev2.pretrain.supply.loading import load_batches
from caev2.pretrain.together.ranks import ALONE
from caev2.progress import Silent
from caev2.store.reader import Store
from tests.made_up_pretrain import PRETRAIN

STEPS = range(60)


@pytest.fixture
def batches(data):
    recipe = dataclasses.replace(PRETRAIN, epochs=20)
    store = Store(data / "store")
    lesson = store_lesson(store, recipe, images=data / "images", device="cpu", ranks=ALONE, progress=Silent())
    return lesson.batches


def assert_same(batch, other) -> None:
    assert (batch.step, batch.epoch, batch.view) == (other.step, other.epoch, other.view)
    assert batch.tensors().keys() == other.tensors().keys()
    for name, tensor in batch.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_come_whole_and_in_order_from_places_that_are_used_again(batches, workers):
    seen = set()
    for step, batch in zip(STEPS, load_batches(batches, STEPS, workers), strict=True):
        seen.add(batch.crops.data_ptr())
        assert_same(batch, batches.batch_of(step))
    assert len(seen) < len(STEPS) / 2


def test_batches_that_are_kept_stay_as_they_are(batches):
    kept = list(load_batches(batches, STEPS, 2))  # more than there are places: the rest has memory of its own
    assert len({batch.crops.data_ptr() for batch in kept}) == len(STEPS)
    for step, batch in zip(STEPS, kept, strict=True):
        assert_same(batch, batches.batch_of(step))


def test_a_place_is_free_when_nobody_holds_a_tensor_in_it(batches):
    pool = BatchPool(batches, 1)
    fill, assigned = pool.filler(), pool.assign(STEPS)
    places = [place for _, place in (next(assigned) for _ in range(5))]
    assert places == [0, 1, 2, 3, 4]
    assert next(assigned) == (5, None)
    held = pool.unpack(fill((0, 2)))
    corner = held.crops[0, :2]
    del held
    gc.collect()
    assert next(assigned) == (6, None)
    assert torch.equal(corner, batches.batch_of(0).crops[0, :2])
    del corner
    gc.collect()
    assert next(assigned) == (7, 2)


def test_a_copied_batch_gives_its_place_back_at_once(batches):
    pool = BatchPool(batches, 1)
    assigned = pool.assign(STEPS)
    step, place = next(assigned)
    assert place is not None
    packed = pool.filler()((step, place))
    copied = dataclasses.replace(packed, memory=pool.memory_at(place).clone())
    batch = pool.unpack(copied)
    assert [next(assigned)[1] for _ in range(5)] == [1, 2, 3, 4, 0]
    assert_same(batch, batches.batch_of(step))


def test_little_shared_memory_makes_fewer_places_and_the_same_batches(batches, monkeypatch):
    free = 5 * batches.layout.bytes
    usage = batch_pool.shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(batch_pool.shutil, "disk_usage", lambda path: usage)
    assert [place for _, place in BatchPool(batches, 8).assign(range(4))] == [0, 1, None, None]
    for step, batch in zip(range(9), load_batches(batches, range(9), 2), strict=True):
        assert_same(batch, batches.batch_of(step))
