"""Files of every layout that is read, and what becomes of each of their keys."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from caev2.errors import CheckpointError
from caev2.pretrain.student.model import build
from caev2.pretrain.weights.foreign import FACTS, recognise
from caev2.pretrain.weights.official import import_official, to_official
from caev2.recipe import to_mapping
from tests.pretrain.weights.test_official import SETTINGS, published_state, write


@pytest.fixture(scope="module")
def student():
    """With random numbers everywhere, so that a tensor in another's place is seen."""
    model = build(SETTINGS, seed=3)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if name != "encoder.pos_embed":
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    for block in model.encoder.blocks:
        block.attn.qkv.bias.data[192:384] = 0
    return model.eval()


def encoder_of(model) -> dict[str, torch.Tensor]:
    """Under timm's names."""
    return {
        name.removeprefix("encoder."): tensor.clone()
        for name, tensor in model.state_dict().items()
        if name.startswith("encoder.")
    }


def fine_tuned(model, *, table: float | None) -> dict[str, torch.Tensor]:
    """The published layout of a fine-tuned classifier, mean pooling, with or without relative positions."""
    official = to_official(model.state_dict())
    bare = {key.removeprefix("encoder."): one.clone() for key, one in official.items() if key.startswith("encoder.")}
    bare = {key.replace("norm.", "fc_norm.") if key.startswith("norm.") else key: one for key, one in bare.items()}
    bare |= {"head.weight": torch.ones(7, 192), "head.bias": torch.zeros(7)}
    if table is not None:
        for block in range(SETTINGS.depth):
            bare[f"blocks.{block}.attn.relative_position_bias_table"] = torch.full((12, 12), table)
            bare[f"blocks.{block}.attn.relative_position_index"] = torch.zeros(5, 5, dtype=torch.long)
    return bare


def tokens_of(model) -> torch.Tensor:
    with torch.inference_mode():
        return model.encoder(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("table", [None, 0.0])
def test_a_fine_tuned_file_gives_its_encoder_and_every_key_is_told(student, table, tmp_path):
    state = fine_tuned(student, table=table)
    model, report = import_official(write(tmp_path / "tuned.pth", state))
    assert torch.equal(tokens_of(model), tokens_of(student))
    assert report.layout == "fine-tuned"
    assert {*report.used, *report.ignored} == state.keys()
    assert report.used["fc_norm.weight"] == "encoder.norm.weight"
    assert report.used["blocks.1.attn.v_bias"] == "encoder.blocks.1.attn.qkv.bias, last third"
    assert "a student has none" in report.ignored["head.weight"]
    if table is not None:
        assert "all zeros" in report.ignored["blocks.0.attn.relative_position_bias_table"]
        assert report.ignored["blocks.0.attn.relative_position_index"] == "computed from the grid"
    assert {name.split(".")[0] for name in report.missing} == {"projection", "regressor", "head"}


def test_learned_relative_positions_are_left_out_only_if_asked(student, tmp_path):
    path = write(tmp_path / "tuned.pth", fine_tuned(student, table=0.5))
    with pytest.raises(CheckpointError, match=r"tuned.pth: blocks.0.* relative positions .*--drop-relative-positions"):
        import_official(path)
    model, report = import_official(path, drop_relative_positions=True)
    assert torch.equal(tokens_of(model), tokens_of(student))
    assert "features are not those of the file" in report.ignored["blocks.1.attn.relative_position_bias_table"]


def test_an_encoder_under_the_names_of_timm_is_read(student, tmp_path):
    state = encoder_of(student)
    model, report = import_official(write(tmp_path / "timm.pth", state, wrapper=None))
    assert torch.equal(tokens_of(model), tokens_of(student))
    assert report.layout == "timm"
    assert set(report.used) == set(state)
    place = report.used["blocks.0.attn.qkv.bias"]
    assert place == "encoder.blocks.0.attn.qkv.bias, first third and its last third"


def test_another_vision_transformer_of_timm_is_refused(student, tmp_path):
    state = encoder_of(student)
    state["blocks.1.attn.qkv.bias"][200] = 0.5
    with pytest.raises(CheckpointError, match=r"blocks.1.attn.qkv.bias gives keys a bias of up to 0.5; .* have none"):
        import_official(write(tmp_path / "timm.pth", state))
    state["blocks.1.attn.qkv.bias"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match=r"shape \(2,\), which is no bias of three equal parts"):
        import_official(write(tmp_path / "timm.pth", state))
    state = encoder_of(student) | {"pos_embed": torch.ones(1, 5, 192)}
    with pytest.raises(CheckpointError, match="differs from the positions of CAE v2"):
        import_official(write(tmp_path / "timm.pth", state))


def test_what_lies_beside_the_weights_is_told(student, tmp_path):
    content = {"model": to_official(student.state_dict()), "optimizer": {"state": {}}, "epoch": 299, "scaler": None}
    torch.save(content, tmp_path / "whole.pth")
    _, report = import_official(tmp_path / "whole.pth")
    assert report.beside == ("optimizer", "epoch", "scaler")


OTHER = dataclasses.replace(SETTINGS, width=48, heads=4, regressor_width=24, regressor_heads=3, regressor_depth=2)


def test_sizes_that_a_file_records_need_no_published_width(tmp_path):
    encoder = encoder_of(build(OTHER, seed=1))
    save_file(encoder, tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match="width 48 is of no published size"):
        import_official(tmp_path / "bare.safetensors")
    facts = {FACTS: json.dumps({"model": to_mapping(OTHER)})}
    save_file(encoder, tmp_path / "told.safetensors", facts)
    model, _ = import_official(tmp_path / "told.safetensors")
    assert model.settings == OTHER
    model, _ = import_official(tmp_path / "told.safetensors", regressor_heads=2)
    assert model.settings == dataclasses.replace(OTHER, regressor_heads=2)
    model, _ = import_official(tmp_path / "bare.safetensors", heads=4)
    assert (model.settings.heads, model.settings.depth, model.settings.regressor_width) == (4, 2, 48)


@pytest.mark.parametrize("said", ["", "no JSON", "[1]", '{"model": 3}', '{"model": {"width": "wide"}}', '{"x": 1}'])
def test_what_a_file_says_of_itself_is_not_believed_if_it_makes_no_sense(student, said, tmp_path):
    save_file(encoder_of(student), tmp_path / "told.safetensors", {FACTS: said})
    model, _ = import_official(tmp_path / "told.safetensors")
    assert model.settings.heads == 12


def test_recorded_sizes_that_are_not_those_of_the_tensors_are_refused(student, tmp_path):
    said = {FACTS: json.dumps({"model": to_mapping(dataclasses.replace(SETTINGS, depth=3))})}
    save_file(encoder_of(student), tmp_path / "told.safetensors", said)
    with pytest.raises(CheckpointError, match=r"encoder.blocks.2.* is missing"):
        import_official(tmp_path / "told.safetensors")


def test_the_published_names_stay_as_they_are():
    state = published_state(SETTINGS)
    found = recognise({"model": state})
    assert found.layout == "pre-training"
    assert found.state == state
