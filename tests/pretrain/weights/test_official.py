import argparse
import dataclasses

import pytest
import torch

from caev2.errors import CheckpointError, UnsafeFile
from caev2.pretrain.student.model import CAEv2, build
from caev2.pretrain.student.positions import position_table
from caev2.pretrain.student.sizes import SIZES, ModelSettings
from caev2.pretrain.weights.foreign import recognise
from caev2.pretrain.weights.official import from_official, import_official, infer_settings, to_official
from tests.pretrain.canary import hostile_files

SETTINGS = ModelSettings(
    image_px=16, patch_px=8, width=192, depth=2, heads=12, regressor_width=96, regressor_depth=1,
    regressor_heads=12, target_width=8,
)  # fmt: skip
"""The published tiny, cut short: its width tells the heads."""


def published_state(settings: ModelSettings, seed: int = 1) -> dict[str, torch.Tensor]:
    """A full pre-training checkpoint as the published code writes it, with random numbers."""
    model = build(settings, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name != "encoder.pos_embed":
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    width = settings.regressor_width
    return {
        "rd_pos_embed": position_table(settings.grid_size, width),
        **to_official(model.state_dict()),
        "regresser.norm.weight": torch.ones(width),
        "regresser.norm.bias": torch.zeros(width),
    }


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return published_state(SETTINGS)


def write(path, state, wrapper: str | None = "model", prefix: str = ""):
    named = {prefix + key: tensor for key, tensor in state.items()}
    torch.save(named if wrapper is None else {wrapper: named, "args": argparse.Namespace(seed=0), "epoch": 299}, path)
    return path


@pytest.mark.parametrize(
    ("size", "entries", "encoder_entries"), [("tiny", 219, 186), ("small", 215, 186), ("base", 278, 186)]
)
def test_names_are_as_many_as_published(size, entries, encoder_entries):
    """Golden, from the published checkpoints; large: 462 with a projection to width 768, 458 without."""
    assert count_entries(SIZES[size]) == (entries, encoder_entries)


def test_large_has_the_published_names():
    narrow = dataclasses.replace(SIZES["large"], regressor_width=768, regressor_heads=12)
    assert count_entries(narrow) == (462, 366)
    assert count_entries(SIZES["large"]) == (458, 366)


def count_entries(settings: ModelSettings) -> tuple[int, int]:
    with torch.device("meta"):
        keys = set(to_official(CAEv2(settings).state_dict()))
    keys |= {"rd_pos_embed", "regresser.norm.weight", "regresser.norm.bias"}
    return len(keys), sum(key.startswith("encoder.") for key in keys)


@pytest.mark.parametrize("wrapper", ["model", "module", "state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_full_checkpoint_comes_back_as_it_was(wrapper, prefix, state, tmp_path):
    model, report = import_official(write(tmp_path / "full.pth", state, wrapper, prefix))
    assert model.settings == SETTINGS
    back = to_official(model.state_dict())
    for key in state.keys() - {"rd_pos_embed", "regresser.norm.weight", "regresser.norm.bias"}:
        assert torch.equal(back[key], state[key]), key
    assert report.missing == ()
    assert set(report.ignored) == {"rd_pos_embed", "regresser.norm.weight", "regresser.norm.bias"}
    assert {*report.used, *report.ignored} == state.keys()


def test_an_encoder_alone_is_completed_by_a_fresh_regressor(state, tmp_path):
    encoder = {key: tensor for key, tensor in state.items() if key.startswith("encoder.")}
    model, report = import_official(write(tmp_path / "encoder.pth", encoder), seed=7)
    fresh = build(dataclasses.replace(SETTINGS, target_width=512), seed=7).state_dict()
    assert model.settings.regressor_width == 96
    for name, tensor in model.state_dict().items():
        if not name.startswith("encoder."):
            assert name in report.missing
            assert torch.equal(tensor, fresh[name]), name
    assert torch.equal(model.encoder.blocks[1].ls2.gamma, state["encoder.blocks.1.gamma_2"])
    assert set(report.used) == set(encoder)


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_sizes_and_heads_are_read_from_the_shapes(size):
    settings = dataclasses.replace(SIZES[size], depth=2)
    with torch.device("meta"):
        keys = to_official(CAEv2(settings).state_dict())
    assert infer_settings(keys) == settings


def test_a_small_patch_grid_and_no_layer_scale_are_read_from_the_shapes():
    settings = dataclasses.replace(SETTINGS, image_px=48, patch_px=4, layer_scale=None, mlp_ratio=2.0)
    assert infer_settings(published_state(settings)) == settings


def test_the_copy_of_version_one_is_ignored_and_not_taken_for_the_encoder(state):
    extra = {
        "alignment_encoder.cls_token": torch.ones(1, 1, 192),
        "teacher.norm.weight": torch.ones(192),
        "something.else": torch.ones(1),
    }
    tensors, report = from_official(state | extra, SETTINGS)
    assert torch.equal(tensors["encoder.cls_token"], state["encoder.cls_token"])
    assert "CAE v1" in report.ignored["alignment_encoder.cls_token"]
    assert "CAE v1" in report.ignored["teacher.norm.weight"]
    assert report.ignored["something.else"] == "caev2 knows no such key"


def test_a_table_with_the_column_first_is_refused(state):
    row, column = state["encoder.pos_embed"].chunk(2, dim=2)
    state["encoder.pos_embed"] = torch.cat([column, row], dim=2)
    with pytest.raises(CheckpointError, match=r"encoder.pos_embed differs .* row in its first half"):
        from_official(state, SETTINGS)


def test_another_shape_is_refused_with_both_shapes(state, tmp_path):
    state["encoder.blocks.1.mlp.fc2.weight"] = torch.zeros(192, 700)
    path = write(tmp_path / "official.pth", state)
    with pytest.raises(
        CheckpointError, match=r"official.pth: encoder.blocks.1.mlp.fc2.weight .*\(192, 700\).*\(192, 768\)"
    ):
        import_official(path)


@pytest.mark.parametrize("key", ["encoder.norm.bias", "encoder.blocks.1.attn.v_bias", "decoder.norm.weight"])
def test_a_part_with_a_hole_is_refused(key, state):
    del state[key]
    with pytest.raises(CheckpointError, match=f"{key} is missing"):
        from_official(state, SETTINGS)


def test_a_missing_block_is_refused(state):
    cut = {key: tensor for key, tensor in state.items() if not key.startswith("encoder.blocks.0.gamma")}
    cut = {key: tensor for key, tensor in cut.items() if not key.startswith("encoder.blocks.0.")}
    with pytest.raises(CheckpointError, match=r"encoder\.blocks\.0\.mlp|without a gap"):
        infer_settings(cut)


def test_an_encoder_with_more_than_the_student_has_is_refused(state):
    state["encoder.blocks.0.attn.relative_position_bias_table"] = torch.zeros(732, 12)
    with pytest.raises(CheckpointError, match="relative_position_bias_table"):
        from_official(state, SETTINGS)


@pytest.mark.parametrize("content", [{}, [1, 2], {"model": {"cls_token": torch.zeros(1)}}, {"model": 3}])
def test_files_of_something_else_are_refused(content):
    with pytest.raises(CheckpointError, match=r"keys that begin with 'encoder\.'"):
        recognise(content)


def test_an_unknown_width_needs_to_be_told_its_heads():
    settings = dataclasses.replace(SETTINGS, width=48, heads=4, regressor_width=48, regressor_heads=4)
    state = published_state(settings)
    with pytest.raises(CheckpointError, match="width 48 is of no published size"):
        infer_settings(state)
    assert infer_settings(state, heads=4, regressor_heads=4) == settings
    assert infer_settings(state, heads=4) == settings


def test_a_regressor_of_another_width_needs_to_be_told_its_heads_too():
    settings = dataclasses.replace(SETTINGS, width=48, heads=4, regressor_width=24, regressor_heads=3)
    state = published_state(settings)
    with pytest.raises(CheckpointError, match=r"regressor is 24 wide and the encoder 48.*--regressor-heads"):
        infer_settings(state, heads=4)
    assert infer_settings(state, heads=4, regressor_heads=3) == settings


def test_a_hostile_checkpoint_is_not_imported(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "official.pth"
    path.write_bytes(hostile_files(canary)["zip archive"])
    with pytest.raises(UnsafeFile):
        import_official(path)
    assert not canary.exists()


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_a_file_in_half_precision_has_positions_that_are_rounded(tmp_path, precision):
    state = to_official(build(SIZES["tiny"], seed=0).state_dict())
    halved = {name: tensor.to(precision) for name, tensor in state.items()}
    torch.save({"model": halved}, tmp_path / "half.pth")
    _, report = import_official(tmp_path / "half.pth")
    assert report.missing == ()
    turned = {**halved, "encoder.pos_embed": halved["encoder.pos_embed"].flip(1)}
    torch.save({"model": turned}, tmp_path / "turned.pth")
    with pytest.raises(CheckpointError, match="differs from the positions of CAE v2"):
        import_official(tmp_path / "turned.pth")
