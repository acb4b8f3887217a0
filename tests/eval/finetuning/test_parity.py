"""The fine-tuning model, its gradients and its learning rates against the published implementation."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from caev2.eval.finetuning.layer_decay import tuning_groups
from caev2.pretrain.student.positions import position_table

from .parity import Oracle, published, read_oracle


@pytest.fixture(params=["plain", "rel_pos"], scope="module")
def oracle(request) -> Oracle:
    return read_oracle(request.param)


def test_scores_and_loss_are_those_of_the_published_code(oracle):
    scores = oracle.model()(oracle.tensors["input/images"])
    torch.testing.assert_close(scores, oracle.tensors["output/logits"], atol=1e-5, rtol=0)
    loss = cross_entropy(scores, oracle.tensors["input/labels"])
    torch.testing.assert_close(loss[None], oracle.tensors["output/loss"], atol=1e-5, rtol=0)


def test_every_gradient_is_that_of_the_published_code(oracle):
    model = oracle.model()
    cross_entropy(model(oracle.tensors["input/images"]), oracle.tensors["input/labels"]).backward()
    computed = published(
        {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    )
    expected = oracle.part("grad/")
    assert computed.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            computed[name], gradient, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_learning_rates_and_weight_decay_of_every_parameter_are_the_published_ones(oracle):
    model = oracle.model()
    groups = tuning_groups(
        model, depth=oracle.sizes.depth, layer_decay=oracle.layer_decay, weight_decay=0.05, decay_tables=True
    )
    parameters = dict(model.named_parameters())
    scales, decays = {}, {}
    for group in groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            assert parameter is parameters[name]
            for key in published({name: parameter.detach()}):
                scales[key], decays[key] = group["lr_scale"], group["weight_decay"] == 0.05
                assert group["weight_decay"] in (0.0, 0.05)
    assert scales == oracle.lr_scale
    assert decays == oracle.decays


def test_stored_positions_and_relative_positions_are_the_ones_computed_here(oracle):
    model = oracle.model()
    stored = oracle.part("weight/")
    torch.testing.assert_close(position_table(4, 48), stored["pos_embed"], atol=1e-6, rtol=0)
    indices = {name: tensor for name, tensor in stored.items() if name.endswith("relative_position_index")}
    assert len(indices) == (3 if oracle.position_bias else 0)
    for name, index in indices.items():
        assert torch.equal(model.encoder.get_buffer(name), index)
