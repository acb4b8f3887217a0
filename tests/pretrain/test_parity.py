"""The student, its loss and its training against the published implementation, number by number."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from caev2.pretrain.learning.loss import alignment_loss, order_targets
from caev2.pretrain.weights.official import to_official

from .parity import NAMES, Oracle, read_oracle, split_mask
from .trajectory import follow


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


def assert_follows(records: list[dict], oracle: Oracle) -> None:
    for name in ("loss", "grad_norm", "lr"):
        followed = torch.tensor([record[name] for record in records], dtype=torch.float64)
        tolerance = 1e-12 if name == "lr" else 1e-4
        torch.testing.assert_close(followed, oracle[f"trajectory/{name}"], atol=tolerance, rtol=0)


def test_the_training_loop_follows_the_published_trajectory_for_twenty_steps(oracle, tmp_path):
    assert_follows(follow(oracle, tmp_path, compiled=False), oracle)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_compiled_training_loop_follows_the_published_trajectory_too(name, tmp_path):
    # in a process of its own: what checks shapes in tests cannot be compiled
    command = [sys.executable, "-m", "tests.pretrain.trajectory", name, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    records, graphs = json.loads(done.stdout.splitlines()[-1])
    assert graphs > 0
    assert_follows(records, read_oracle(name))


def test_stored_positions_are_the_ones_computed_here(oracle):
    model = oracle.student()
    for computed, key in (
        (model.encoder.pos_embed[0, 1:], "weight/encoder.pos_embed"),
        (model.regressor.positions, "weight/rd_pos_embed"),
    ):
        torch.testing.assert_close(computed.data, oracle[key][0, 1:], atol=1e-6, rtol=0)
