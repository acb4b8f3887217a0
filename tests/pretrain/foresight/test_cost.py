"""Cost as arithmetic, against the published numbers and against what torch really does and keeps."""

import dataclasses
from typing import NamedTuple

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from caev2.pretrain.foresight.cost import (
    count_multiply_adds,
    count_parameters,
    estimate_memory,
    mfu,
    peak_flops,
)
from caev2.pretrain.learning.loss import alignment_loss, order_targets
from caev2.pretrain.student.model import CAEv2, branch_rates, build
from caev2.pretrain.student.sizes import SIZES, ModelSettings
from tests.made_up_pretrain import PRETRAIN

MASKED = {"tiny": 30, "small": 49, "base": 98, "large": 98}
PUBLISHED_GMAC = {"tiny": 1.06, "small": 3.58, "base": 12.1, "large": 36.6}
PLAIN = dataclasses.replace(PRETRAIN.model, layer_scale=None, regressor_layer_scale=None, regressor_width=24)
SEEING = dataclasses.replace(PRETRAIN.model, regressor_depth=0)


@pytest.mark.parametrize("name", SIZES)
def test_the_published_sizes_cost_the_published_multiply_adds(name):
    cost = count_multiply_adds(SIZES[name], MASKED[name])
    assert cost.total / 1e9 == pytest.approx(PUBLISHED_GMAC[name], rel=0.01)
    assert cost.flops_per_step == 6 * cost.total
    assert (cost.projection > 0) == (name == "tiny")


@pytest.mark.parametrize(
    "model",
    [*SIZES.values(), PRETRAIN.model, PLAIN, SEEING],
    ids=[*SIZES, "made up", "without scales", "without a regressor"],
)
def test_parameters_are_those_of_the_model(model):
    with torch.device("meta"):
        student = CAEv2(model)
    assert count_parameters(model) == sum(p.numel() for p in student.parameters() if p.requires_grad)


class Inputs(NamedTuple):
    images: torch.Tensor
    latents: torch.Tensor
    visible: torch.Tensor
    masked: torch.Tensor
    keep: torch.Tensor


def made_up_inputs(model: ModelSettings, masked: int, images: int) -> Inputs:
    order = torch.rand(images, model.patches).argsort(dim=1)
    return Inputs(
        torch.randn(images, 3, model.image_px, model.image_px),
        torch.randn(images, model.patches + 1, model.target_width),
        order[:, masked:].sort(dim=1).values,
        order[:, :masked].sort(dim=1).values,
        torch.ones(len(branch_rates(model)), images, dtype=torch.bool),
    )


@pytest.mark.parametrize(("model", "masked"), [(SIZES["tiny"], 30), (SIZES["small"], 49), (SEEING, 6)])
def test_torch_counts_the_same_operations(model, masked):
    inputs = made_up_inputs(model, masked, images=2)
    with FlopCounterMode(display=False) as counted:
        build(model, 0)(inputs.images, inputs.visible, inputs.masked, inputs.keep)
    expected = 2 * 2 * count_multiply_adds(model, masked).total
    assert counted.get_total_flops() == pytest.approx(expected, rel=0.01)


def kept_bytes(model: ModelSettings, masked: int, precision: str, images: int) -> float:
    """Activations that the backward pass of an image needs, as torch keeps them."""
    student, inputs = build(model, 0), made_up_inputs(model, masked, images)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*student.parameters(), *student.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            predicted = student(inputs.images, inputs.visible, inputs.masked, inputs.keep)
        target = order_targets(inputs.latents, inputs.visible, inputs.masked)
        alignment_loss(predicted, target, inputs.visible.shape[1])
    casts = 2 * count_parameters(model) if precision == "bf16" else 0
    return (sum(storage.nbytes() for storage in kept.values()) - casts) / images


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["tiny", "small"])
def test_estimated_activations_are_what_torch_keeps(name, precision):
    model, masked = SIZES[name], MASKED[name]
    estimated = estimate_memory(model, masked, precision).activation_bytes_per_image
    assert estimated == pytest.approx(kept_bytes(model, masked, precision, images=2), rel=0.3)


def test_recomputing_keeps_little_more_than_one_block():
    for name, model in SIZES.items():
        whole, less = (
            estimate_memory(model, MASKED[name], "bf16", recompute=recompute).activation_bytes_per_image
            for recompute in (False, True)
        )
        assert less < 0.35 * whole


def test_memory_grows_with_the_batch_and_bf16_halves_most_of_it():
    full, half = (estimate_memory(SIZES["base"], 98, precision) for precision in ("fp32", "bf16"))
    assert full.model_bytes == 16 * count_parameters(SIZES["base"])
    assert full.of_batch(10) - full.of_batch(4) == 6 * full.activation_bytes_per_image
    assert 0.5 < half.activation_bytes_per_image / full.activation_bytes_per_image < 0.7


@pytest.mark.parametrize(
    ("name", "tera_flops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("Tesla V100-SXM2-32GB", 125),
        ("Tesla V100-PCIE-16GB", 112),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 3090", 71.2),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA B200", 2250),
        ("NVIDIA RTX 6000 Ada Generation", 364.2),
    ],
)
def test_peaks_are_known_by_the_names_that_torch_gives(name, tera_flops):
    assert peak_flops(name) == tera_flops * 1e12


@pytest.mark.parametrize(
    "name", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "Intel Xeon", ""]
)
def test_other_cards_and_slices_of_cards_have_no_peak(name):
    assert peak_flops(name) is None


def test_utilisation_is_one_where_the_peak_is_reached():
    assert mfu(gmac=12.1, images_per_s=1000, peak=6 * 12.1e9 * 1000.0) == pytest.approx(1)
    assert mfu(gmac=12.1, images_per_s=500, peak=6 * 12.1e9 * 1000.0) == pytest.approx(0.5)
