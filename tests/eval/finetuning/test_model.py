"""The fine-tuning model: biases of relative positions, other resolutions, its start."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from caev2.eval.finetuning.attention import BiasedAttention, table_rows
from caev2.eval.finetuning.layer_decay import decays_in_tuning, lr_scale, tuning_groups
from caev2.eval.finetuning.model import FineTuner, tunable_encoder
from caev2.pretrain.student.encoder import Encoder, SelfAttention
from caev2.pretrain.student.model import build
from caev2.pretrain.student.positions import position_table
from caev2.pretrain.student.sizes import SIZES
from tests.made_up import PRETRAIN

SIZES_HERE = PRETRAIN.model


def tuner(classes: int = 5, *, image_px: int | None = None, drop_path: float = 0.0, position_bias: bool = True, **more):
    backbone = tunable_encoder(
        build(SIZES_HERE, 0).encoder, SIZES_HERE, image_px=image_px, drop_path=drop_path, position_bias=position_bias
    )
    return FineTuner(backbone, classes, **{"head_scale": 0.001, "seed": 0, **more})


class Skipped(torch.nn.Module):
    def forward(self, tokens, scales):
        return tokens


def images(count: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_a_grid_of_fourteen_has_732_relative_positions():
    assert table_rows(14) == 732
    assert BiasedAttention(24, 12, 14).relative_position_bias_table.shape == (732, 12)


@given(st.integers(1, 5))
def test_the_row_of_two_patches_is_a_function_of_how_they_lie_to_each_other(grid):
    index = BiasedAttention(4, 1, grid).relative_position_index
    rows: dict[tuple, int] = {}
    places = [None, *((row, column) for row in range(grid) for column in range(grid))]
    for query, one in enumerate(places):
        for key, other in enumerate(places):
            if one is None or other is None:
                relation = ("class", one is None, other is None)
            else:
                relation = (one[0] - other[0], one[1] - other[1])
            assert rows.setdefault(relation, int(index[query, key])) == int(index[query, key])
    assert sorted(rows.values()) == list(range(table_rows(grid)))


def test_before_training_biased_attention_is_plain_attention():
    biased, plain = BiasedAttention(24, 2, 4), SelfAttention(24, 2)
    plain.load_state_dict({name: value for name, value in biased.state_dict().items() if "relative" not in name})
    tokens = torch.randn(2, 17, 24)
    torch.testing.assert_close(biased(tokens), plain(tokens), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(tuner()(images()), tuner(position_bias=False)(images()), atol=1e-8, rtol=1e-5)


def test_the_bias_is_added_to_the_scores_of_queries_and_keys():
    attention, tokens = BiasedAttention(8, 2, 2), torch.randn(1, 5, 8)
    torch.nn.init.normal_(attention.relative_position_bias_table)
    mixed = torch.nn.functional.linear(tokens, attention.qkv.weight, attention.qkv.bias * attention.bias_mask)
    query, key, value = mixed.unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    scores = query @ key.mT / 2  # the root of a head's width
    for row in range(5):
        for column in range(5):
            place = attention.relative_position_index[row, column]
            scores[0, :, row, column] += attention.relative_position_bias_table[place]
    expected = attention.proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(tokens), expected, atol=1e-6, rtol=1e-5)


def test_at_another_resolution_positions_are_computed_anew_and_weights_stay():
    model, trained = tuner(image_px=48), build(SIZES_HERE, 0).encoder
    assert torch.equal(model.encoder.pos_embed, position_table(6, 24))
    assert torch.equal(model.encoder.blocks[1].attn.qkv.weight, trained.blocks[1].attn.qkv.weight)
    assert model.encoder.blocks[0].attn.relative_position_bias_table.shape == (11 * 11 + 3, 2)
    assert model(images(size=48)).shape == (3, 5)


def test_the_norm_of_the_mean_starts_as_the_encoders():
    student = build(SIZES_HERE, 0)
    torch.nn.init.normal_(student.encoder.norm.weight)
    backbone = tunable_encoder(student.encoder, SIZES_HERE, image_px=None, drop_path=0.0, position_bias=False)
    model = FineTuner(backbone, 4, head_scale=1.0, seed=0)
    assert torch.equal(model.fc_norm.weight, student.encoder.norm.weight)
    student.encoder.norm = torch.nn.Identity()
    expected = model.head(model.fc_norm(student.encoder(images())[:, 1:].mean(1)))
    torch.testing.assert_close(model(images()), expected, atol=1e-6, rtol=1e-5)


def test_at_its_start_every_class_is_as_likely_as_another():
    loss = cross_entropy(tuner(7)(images()), torch.tensor([0, 3, 6]))
    assert loss.item() == pytest.approx(math.log(7), abs=1e-3)


def test_the_head_is_a_function_of_the_seed_and_its_start_is_scaled():
    one, other = tuner(seed=1).head.weight, tuner(seed=2).head.weight
    assert torch.equal(one, tuner(seed=1).head.weight)
    assert not torch.equal(one, other)
    torch.testing.assert_close(tuner(seed=1, head_scale=1.0).head.weight * 0.001, one)


def test_dropped_branches_change_nothing_but_what_they_would_have_added():
    model = tuner(drop_path=0.5)
    everything = torch.ones(4, 3, dtype=torch.bool)
    none_of_the_last = everything.clone()
    none_of_the_last[2:] = False
    shallow = model(images(), none_of_the_last)
    model.encoder.blocks[1] = Skipped()
    torch.testing.assert_close(model(images(), everything), shallow)


def test_the_published_base_has_86_5_million_trained_numbers():
    with torch.device("meta"):
        encoder = Encoder(image_px=224, patch_px=16, width=768, depth=12, heads=12, layer_scale=0.1)
        head = torch.nn.Linear(768, 1000)
        biases = BiasedAttention(768, 12, 14).relative_position_bias_table
    assert SIZES["base"].width == 768
    trained = sum(each.numel() for each in encoder.parameters() if each.requires_grad)
    keys = 12 * 768  # constant zeros, which the published model has no parameter for
    total = trained - keys + 12 * biases.numel() + sum(each.numel() for each in head.parameters())
    assert total == 86_530_984


def test_without_layer_decay_all_learn_alike_and_tables_may_be_left_from_weight_decay():
    model = tuner()
    groups = tuning_groups(model, depth=2, layer_decay=1.0, weight_decay=0.05, decay_tables=False)
    assert {group["lr_scale"] for group in groups} == {1.0}
    kept = {name for group in groups if group["weight_decay"] == 0 for name in group["names"]}
    assert "encoder.blocks.0.attn.relative_position_bias_table" in kept
    assert "encoder.blocks.0.attn.qkv.weight" not in kept
    listed = [name for group in groups for name in group["names"]]
    assert sorted(listed) == sorted(name for name, each in model.named_parameters() if each.requires_grad)
    assert "encoder.pos_embed" not in listed


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("encoder.cls_token", 13),
        ("encoder.patch_embed.proj.weight", 13),
        ("encoder.positional_embedding", 13),
        ("encoder.blocks.0.attn.in_proj_weight", 12),
        ("encoder.trunk.blocks.11.mlp.fc1.weight", 1),
        ("fc_norm.weight", 0),
        ("head.bias", 0),
    ],
)
def test_the_learning_rate_falls_with_every_step_down_from_the_head(name, steps):
    assert lr_scale(name, 12, 0.75) == 0.75**steps


def test_class_token_and_learned_positions_do_not_decay():
    table = torch.nn.Parameter(torch.zeros(1, 5, 4))
    for name in ("encoder.cls_token", "encoder.positional_embedding", "encoder.trunk.pos_embed"):
        assert not decays_in_tuning(name, table)
    assert decays_in_tuning("encoder.mask_token", table)
