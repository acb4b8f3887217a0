"""The plain loop of the benchmarks is the same method as the package: the same loss and gradients."""

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks.pretraining.plain_loop import block_mask
from benchmarks.pretraining.plain_student import PlainStudent, plain_loss, plain_targets
from caev2.pretrain.learning.loss import alignment_loss, order_targets
from caev2.pretrain.student.model import build
from caev2.pretrain.student.parameters import parameter_groups
from caev2.pretrain.supply.masks import draw_masks
from caev2.pretrain.weights.official import to_official
from tests.made_up_pretrain import PRETRAIN

SETTINGS = {
    "with a projection": dataclasses.replace(PRETRAIN.model, drop_path=0.0),
    "of one width": dataclasses.replace(PRETRAIN.model, drop_path=0.0, regressor_width=24),
}
IMAGES, TOLERANCE = 3, 1e-5


@pytest.fixture(params=SETTINGS)
def both(request):
    """Two students of the same weights, each with its loss on the same images, masks and targets."""
    settings, random = SETTINGS[request.param], torch.Generator().manual_seed(0)
    model, plain = build(settings, seed=3), PlainStudent(settings)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and scales too, so that none can be left out unnoticed
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random) * parameter.requires_grad)
    plain.load_state_dict(to_official(model.state_dict()))
    images = torch.randn(IMAGES, 3, settings.image_px, settings.image_px, generator=random)
    latents = torch.randn(IMAGES, settings.patches + 1, settings.target_width, generator=random)
    visible, masked = map(torch.from_numpy, draw_masks(PRETRAIN.mask, settings.grid_size, 0, 0, range(IMAGES)))
    mask = torch.zeros(IMAGES, settings.patches, dtype=torch.bool).scatter(1, masked, True)
    predicted = model(images, visible, masked)
    ours = alignment_loss(predicted, order_targets(latents, visible, masked), visible.shape[1]).loss
    return model, ours, plain, plain_loss(plain(images, mask), plain_targets(latents, mask))


def test_the_plain_student_has_the_same_loss(both):
    _, ours, _, theirs = both
    assert 0.5 < ours.item() < 1.5
    assert theirs.item() == pytest.approx(ours.item(), rel=TOLERANCE)


def test_the_plain_student_has_the_same_gradients(both):
    model, ours, plain, theirs = both
    ours.backward()
    theirs.backward()
    wanted = to_official({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    found = {name: one.grad for name, one in plain.named_parameters() if one.grad is not None}
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-6, msg=name)


def test_the_plain_student_decays_the_same_weights(both):
    model, _, plain, _ = both
    decayed, kept = (group["names"] for group in parameter_groups(plain, 0.05))
    ours = [set(to_official(dict.fromkeys(group["names"], torch.zeros(3)))) for group in parameter_groups(model, 0.05)]
    assert (set(decayed), set(kept)) == tuple(ours)


@pytest.mark.parametrize("count", [30, 49, 98])
def test_the_plain_mask_has_exactly_so_many_patches(count):
    masks = np.stack([block_mask(count, 14) for _ in range(20)])
    assert (masks.sum(axis=(1, 2)) == count).all()
    assert len(np.unique(masks, axis=0)) > 1
