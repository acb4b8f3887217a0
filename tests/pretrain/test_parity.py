"""The student, its loss and its training against the published implementation, number by number."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from caev2.pretrain.batches import Batch
from caev2.pretrain.loss import alignment_loss, order_targets
from caev2.pretrain.official import to_official
from caev2.pretrain.parameters import adamw
from caev2.pretrain.schedule import CosineSchedule
from caev2.pretrain.step import update

from .parity import NAMES, Oracle, read_oracle, split_mask


@pytest.fixture(params=NAMES, scope="module")
def oracle(request) -> Oracle:
    return read_oracle(request.param)


def aligned(model: nn.Module, oracle: Oracle, images: torch.Tensor, mask: torch.Tensor):
    visible, masked = split_mask(mask)
    predicted = model(images, visible, masked)
    target = order_targets(oracle["input/target_tokens"], visible, masked)
    return predicted, alignment_loss(predicted, target, visible.shape[1])


def test_predictions_and_loss_are_those_of_the_published_code(oracle):
    predicted, alignment = aligned(oracle.student(), oracle, oracle["input/images"], oracle["input/mask"])
    torch.testing.assert_close(functional.normalize(predicted, dim=-1), oracle["output/prediction"], atol=1e-5, rtol=0)
    torch.testing.assert_close(alignment.loss[None], oracle["output/loss"], atol=1e-5, rtol=0)


def test_every_gradient_is_that_of_the_published_code(oracle):
    model = oracle.student()
    aligned(model, oracle, oracle["input/images"], oracle["input/mask"])[1].loss.backward()
    computed = to_official(
        {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    )
    expected = oracle.part("grad/")
    assert computed.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            computed[name], gradient, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def batch_of(oracle: Oracle, mask: torch.Tensor) -> Batch:
    """What the training loop would hand to its step; the images come beside it, normalised already."""
    visible, masked = split_mask(mask)
    count, size = len(mask), oracle.settings.image_px
    return Batch(
        step=0,
        epoch=0,
        view=0,
        rows=torch.arange(count),
        crops=torch.zeros((count, size, size, 3), dtype=torch.uint8),
        targets=oracle["input/target_tokens"],
        visible=visible,
        masked=masked,
        keep=None,
        drifted=None,
    )


def test_twenty_training_steps_follow_the_published_trajectory(oracle):
    model = oracle.student().train()
    training = oracle.training
    optimizer = adamw(model, weight_decay=training["weight_decay"])
    schedule = CosineSchedule(
        peak_lr=training["peak_lr"],
        min_lr=training["min_lr"],
        warmup_steps=int(training["warmup_steps"]),
        total_steps=len(oracle["trajectory/loss"]),
    )
    followed = {"loss": [], "grad_norm": [], "lr": []}
    for step in range(schedule.total_steps):
        images, mask = oracle["input/images"].roll(step, -1), oracle["input/mask"].roll(step, 1)
        lr = schedule.lr_at(step)
        batch = batch_of(oracle, mask)
        figures = update(model, optimizer, batch, images, batch.targets, lr=lr, clip_norm=training["clip_grad"])
        for name, value in (("loss", figures.alignment.loss), ("grad_norm", figures.grad_norm), ("lr", lr)):
            followed[name].append(float(value))
    for name, values in followed.items():
        tolerance = 1e-12 if name == "lr" else 1e-4
        torch.testing.assert_close(
            torch.tensor(values, dtype=torch.float64), oracle[f"trajectory/{name}"], atol=tolerance, rtol=0
        )


def test_stored_positions_are_the_ones_computed_here(oracle):
    model = oracle.student()
    for computed, key in (
        (model.encoder.pos_embed[0, 1:], "weight/encoder.pos_embed"),
        (model.regressor.positions, "weight/rd_pos_embed"),
    ):
        torch.testing.assert_close(computed.data, oracle[key][0, 1:], atol=1e-6, rtol=0)
