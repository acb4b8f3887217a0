"""timm's vision transformers as teachers, against timm itself."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from caev2.errors import ConfigError, TeacherError
from caev2.extract.teachers.catalog import load_teacher, parse_name
from caev2.extract.teachers.identity import tower_sha256
from caev2.extract.teachers.teacher import Teacher, normalise

PLAIN, REGISTERS = "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Random weights at 70 pixels, as timm would save them: the models themselves and their files."""
    folder, models = tmp_path_factory.mktemp("timm"), {}
    for name in (PLAIN, REGISTERS):
        torch.manual_seed(0)
        model = timm.create_model(name, img_size=70, num_classes=0).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        save_file(model.state_dict(), folder / name)
        models[name] = model
    return folder, models


@pytest.fixture(scope="module")
def crops() -> Tensor:
    return torch.randint(0, 256, (2, 70, 70, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [PLAIN, REGISTERS])
@torch.no_grad()
def test_tokens_are_those_that_timm_computes(made, crops, name):
    folder, models = made
    teacher = load_teacher(f"timm:{name}@{folder / name}", image_px=70)
    assert isinstance(teacher, Teacher)
    found = teacher.tokens(crops, ["post_norm", "block:3"])
    pixels, model = normalise(crops, *IMAGENET), models[name]
    prefix = model.num_prefix_tokens
    expected = model.forward_features(pixels)
    torch.testing.assert_close(found["post_norm"][:, 1:], expected[:, prefix:])
    torch.testing.assert_close(found["post_norm"][:, 0], expected[:, 0])
    third = model.get_intermediate_layers(pixels, n=[2], return_prefix_tokens=True)[0]
    torch.testing.assert_close(found["block:3"], torch.cat([third[1][:, :1], third[0]], 1))
    assert found["post_norm"].shape[1] == teacher.description.tokens == 26


@torch.no_grad()
def test_positions_are_resized_as_timm_does_and_the_identity_is_from_before(made):
    folder, models = made
    crops = torch.randint(0, 256, (1, 98, 98, 3), dtype=torch.uint8)
    teacher = load_teacher(f"timm:{PLAIN}@{folder / PLAIN}", image_px=98)
    bigger = timm.create_model(PLAIN, img_size=98, num_classes=0).eval()
    bigger.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(models[PLAIN].state_dict(), bigger))
    expected = bigger.forward_features(normalise(crops, *IMAGENET))
    torch.testing.assert_close(teacher.tokens(crops, ["post_norm"])["post_norm"], expected)
    small = load_teacher(f"timm:{PLAIN}@{folder / PLAIN}", image_px=70)
    assert teacher.description.sha256 == small.description.sha256 == tower_sha256(models[PLAIN].state_dict())
    assert teacher.description.name == small.description.name == f"timm:{PLAIN}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:vit_smal_patch14_dinov2.lvd142m", "Did you mean 'vit_small_patch14_dinov2'"),
        ("timm:vit_small_patch14_dinov2.lvd", "knows no weights called 'lvd'"),
        ("timm:vit_small_patch14_dinov2", "names no weights. Add @PATH of a file, or .TAG (known: lvd142m)"),
        ("timm:vit_base_patch16_clip_224.openai", "Write timm:vit_base_patch16_clip_quickgelu_224.openai."),
        ("timm:vit_base_patch16_224@file", "trained on differently normalised pixels"),
        ("timm:vit_small_patch14_dinov2/x", "is written as timm:MODEL.TAG or timm:MODEL@PATH"),
        ("timm", "is written as timm:MODEL.TAG"),
    ],
)
def test_names_that_cannot_be_are_refused(name, message):
    with pytest.raises(ConfigError) as refused:
        parse_name(name)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("model", "size", "error", "message"),
    [
        (PLAIN, 71, ConfigError, "cannot be 71. Give a multiple of 14"),
        (REGISTERS, 70, TeacherError, "for reg_token the architecture has"),
        ("vit_base_patch14_dinov2", 70, TeacherError, "is no timm:vit_base_patch14_dinov2"),
        ("vit_base_patch16_siglip_224", 64, TeacherError, "for attn_pool.kv.bias the architecture has"),
    ],
)
def test_weights_and_sizes_that_do_not_fit_are_refused(made, model, size, error, message):
    with pytest.raises(error) as refused:
        load_teacher(f"timm:{model}@{made[0] / PLAIN}", image_px=size)
    assert message in str(refused.value)


def test_broken_numbers_are_refused(made, tmp_path):
    weights = {**made[1][PLAIN].state_dict()}
    weights["norm.bias"] = torch.full_like(weights["norm.bias"], torch.nan)
    save_file(weights, tmp_path / "broken")
    with pytest.raises(TeacherError, match=r"undefined numbers in norm\.bias"):
        load_teacher(f"timm:{PLAIN}@{tmp_path / 'broken'}", image_px=70)


def test_weights_that_are_not_there_are_named_with_their_repository(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TeacherError) as refused:
        load_teacher("timm:vit_small_patch14_dinov2.lvd142m", cache=tmp_path)
    message = str(refused.value)
    assert "model.safetensors from the repository timm/vit_small_patch14_dinov2.lvd142m" in message
    assert "--teacher timm:vit_small_patch14_dinov2.lvd142m@/path/model.safetensors" in message
