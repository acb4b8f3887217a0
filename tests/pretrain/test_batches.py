"""How a batch travels."""

import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from caev2.pretrain.batches import Batch, StepBatches
from caev2.pretrain.loading import load_adaptively
from caev2.pretrain.plan import fit_recipe, row_order
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
