import torch

from caev2.pretrain.student.model import build
from caev2.pretrain.student.parameters import adamw, parameter_groups, set_learning_rate
from caev2.pretrain.student.sizes import ModelSettings

SETTINGS = ModelSettings(
    image_px=16, patch_px=8, width=8, depth=1, heads=2, regressor_width=12, regressor_depth=1,
    regressor_heads=2, target_width=8,
)  # fmt: skip


def test_matrices_and_tokens_decay_and_nothing_else_does():
    decaying, exempt = parameter_groups(build(SETTINGS, seed=0), 0.05)
    assert set(decaying["names"]) == {
        "encoder.cls_token",
        "encoder.patch_embed.proj.weight",
        "encoder.blocks.0.attn.qkv.weight",
        "encoder.blocks.0.attn.proj.weight",
        "encoder.blocks.0.mlp.fc1.weight",
        "encoder.blocks.0.mlp.fc2.weight",
        "projection.linear.weight",
        "regressor.mask_token",
        "regressor.blocks.0.attn.q.weight",
        "regressor.blocks.0.attn.k.weight",
        "regressor.blocks.0.attn.v.weight",
        "regressor.blocks.0.attn.proj.weight",
        "regressor.blocks.0.mlp.fc1.weight",
        "regressor.blocks.0.mlp.fc2.weight",
        "head.linear.weight",
    }
    assert (decaying["weight_decay"], exempt["weight_decay"]) == (0.05, 0.0)
    assert all(parameter.ndim == 1 for parameter in exempt["params"])


def test_every_trained_parameter_is_in_one_group_and_positions_in_none():
    model = build(SETTINGS, seed=0)
    grouped = [name for group in parameter_groups(model, 0.05) for name in group["names"]]
    trained = [name for name, _ in model.named_parameters() if name != "encoder.pos_embed"]
    assert sorted(grouped) == sorted(trained)


def test_only_the_decaying_group_shrinks_where_there_is_no_gradient():
    model = build(SETTINGS, seed=0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = adamw(model, weight_decay=0.5)
    set_learning_rate(optimizer, 0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decaying = set(optimizer.param_groups[0]["names"])
    for name, parameter in model.named_parameters():
        factor = 0.95 if name in decaying else 1.0
        torch.testing.assert_close(parameter.data, before[name] * factor)
