"""The published probe's head and optimiser: its own ten steps, and the learning rate in between."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from caev2.eval.probes.lars import lars_of, lr_share, make_head, take_step

FILE = Path(__file__).parents[2] / "data" / "parity" / "linear_probe_lars.safetensors"


@pytest.fixture(scope="module")
def published():
    """Tensors by name, and the settings."""
    with safe_open(FILE, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def part(tensors: dict, prefix: str) -> dict:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def test_ten_steps_are_those_of_the_published_code(published):
    tensors, settings = published
    features, labels = tensors["input/features"], tensors["input/labels"]
    head = make_head(features.shape[1], len(tensors["initial/1.bias"]), seed=0)
    head.load_state_dict(part(tensors, "initial/"))
    optimizer, lr = lars_of(head), float(settings["lr"])
    for group in optimizer.param_groups:
        assert group["momentum"] == float(settings["momentum"])
        assert group["trust_coeff"] == float(settings["trust_coefficient"])
        assert group["weight_decay"] == float(settings["weight_decay"])
    losses = [take_step(head.train(), optimizer, features, labels, lr) for _ in range(10)]
    torch.testing.assert_close(torch.stack(losses).double(), tensors["trajectory/loss"], atol=1e-4, rtol=0)
    for name, wanted in part(tensors, "final/").items():
        torch.testing.assert_close(head.state_dict()[name], wanted, atol=1e-4, rtol=0, msg=name)


def test_a_step_is_a_thousandth_of_the_matrix_and_plain_for_the_bias():
    torch.manual_seed(0)
    head = nn.Linear(6, 4)
    features, labels = torch.randn(10, 6), torch.arange(10) % 4
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    take_step(head, lars_of(head), features, labels, lr=2.0)
    assert head.weight.grad is not None
    assert head.bias.grad is not None
    moved = (head.weight - weight).norm()
    torch.testing.assert_close(moved, 2.0 * 0.001 * weight.norm(), rtol=1e-4, atol=0)
    torch.testing.assert_close(head.bias - bias, -2.0 * head.bias.grad)


def test_a_head_starts_small_follows_its_seed_and_its_norm_has_no_gains():
    one, again, other = (make_head(400, 50, seed) for seed in (1, 1, 2))
    assert torch.equal(one[1].weight, again[1].weight)
    assert not torch.equal(one[1].weight, other[1].weight)
    assert float(one[1].weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert not one[1].bias.detach().any()
    assert [name for name, _ in one.named_parameters()] == ["1.weight", "1.bias"]
    assert one[0].eps == 1e-6


@pytest.mark.parametrize(
    ("epoch", "share"), [(0.0, 0), (2.5, 0.25), (10.0, 1), (10 + 80 / 3, 0.75), (50.0, 0.5), (90.0, 0)], ids=str
)
def test_the_learning_rate_rises_for_ten_epochs_and_falls_to_zero(epoch, share):
    assert lr_share(epoch, epochs=90, warmup_epochs=10.0) == pytest.approx(share, abs=1e-12)


@given(st.integers(2, 200), st.floats(0, 1))
def test_the_learning_rate_stays_between_zero_and_its_peak(epochs, moment):
    assert 0 <= lr_share(moment * epochs, epochs=epochs, warmup_epochs=min(10.0, epochs / 9)) <= 1
