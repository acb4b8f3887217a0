"""Every architecture of open_clip and timm is a teacher or refused with a reason; one of each family is run."""

from pathlib import Path

import open_clip
import pytest
import timm
import torch
from open_clip.model import _build_vision_tower
from safetensors.torch import save_file
from torch import nn

from caev2.errors import ConfigError, TeacherError
from caev2.extract.teachers import openclip, openclip_timm, published
from caev2.extract.teachers.catalog import load_teacher
from caev2.extract.teachers.describe import describe_teacher
from caev2.extract.teachers.known import TEACHERS
from caev2.extract.teachers.names import split_name
from caev2.extract.teachers.openclip import TowerConfig
from caev2.extract.teachers.teacher import PooledTeacherDescription, Teacher, normalise
from caev2.extract.teachers.trunks import known_trunks
from caev2.extract.teachers.weights import TowerFile

HALF = (0.5, 0.5, 0.5)
REFUSED_OF_OPEN_CLIP = {"resnet": 10, "attentional pooler": 2, "convnext": 11, "fastvit": 6, "swin_transformer": 1}
"""How many architectures of each kind this version of open_clip has; a later one may have more."""


def randomise(model: nn.Module) -> nn.Module:
    """Weights that let nothing vanish: many trunks begin with zeros."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05, generator=generator)
    return model.eval()


def crops_of(px: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, px, px, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def open_clip_tower(architecture: str) -> tuple[nn.Module, TowerConfig]:
    """A tower of open_clip with random weights, and what is known of it."""
    model = open_clip.get_model_config(architecture)
    quick = bool(model.get("quick_gelu"))
    tower = randomise(_build_vision_tower(model["embed_dim"], model["vision_cfg"], quick))
    config = TowerConfig(
        vision=model["vision_cfg"], embed_dim=model["embed_dim"], quick_gelu=quick, mean=HALF, std=HALF
    )
    return tower, config


def teacher_of(tower: nn.Module, config: TowerConfig, **options) -> Teacher:
    weights = {name: value for name, value in tower.state_dict().items() if value.is_floating_point()}
    file = TowerFile(path=Path("memory"), weights=weights, quick_gelu=None)
    kind = openclip_timm if config.vision.get("timm_model_name") else openclip
    return kind.build_teacher(config, file, name="tower", device="cpu", **options)


@pytest.mark.parametrize(
    ("architecture", "class_row"),
    [
        ("ViT-S-16", None),
        ("coca_base", None),
        ("EVA02-B-16", None),
        ("MobileCLIP-B", None),
        ("vit_relpos_medium_patch16_cls_224", None),
        ("vit_medium_patch16_gap_256", "mean"),
        ("ViTamin-S", "mean"),
    ],
)
@torch.no_grad()
def test_the_projected_class_row_is_the_embedding_that_open_clip_computes(architecture, class_row):
    tower, config = open_clip_tower(architecture)
    teacher = teacher_of(tower, config)
    crops = crops_of(teacher.description.image_px)
    expected = tower(normalise(crops, HALF, HALF))
    embedding = expected[0] if isinstance(expected, tuple) else expected
    found = teacher.tokens(crops, ["projected", "post_norm", "block:1"])
    torch.testing.assert_close(found["projected"][:, 0], embedding, rtol=0, atol=1e-5)
    assert getattr(teacher.description, "class_row", None) == class_row
    assert {tap: (2, teacher.description.tokens, teacher.description.widths[tap]) for tap in found} == {
        tap: tuple(tokens.shape) for tap, tokens in found.items()
    }


@torch.no_grad()
def test_clipas_class_row_is_the_mean_of_its_patches_normed_and_projected():
    vision = {**open_clip.get_model_config("ViT-L-14-CLIPA")["vision_cfg"], "width": 64, "layers": 2, "image_size": 56}
    tower = randomise(_build_vision_tower(32, vision, False))
    config = TowerConfig(vision=vision, embed_dim=32, quick_gelu=False, mean=HALF, std=HALF)
    teacher = teacher_of(tower, config)
    found = teacher.tokens(crops_of(56), ["projected", "block:2"])
    torch.testing.assert_close(found["projected"][:, 0], tower(normalise(crops_of(56), HALF, HALF)))
    patches = found["block:2"][:, 1:]
    torch.testing.assert_close(found["projected"][:, 1:], tower.ln_post(patches) @ tower.proj)
    assert isinstance(teacher.description, PooledTeacherDescription)


@pytest.mark.parametrize("architecture", ["ViT-B-16-SigLIP", "PE-Core-T-16-384"])
@torch.no_grad()
def test_an_attention_pooling_gives_the_class_row_and_leaves_no_projection(architecture):
    tower, config = open_clip_tower(architecture)
    teacher = teacher_of(tower, config)
    crops = crops_of(teacher.description.image_px)
    pixels = normalise(crops, HALF, HALF)
    found = teacher.tokens(crops, ["post_norm", "block:1"])
    torch.testing.assert_close(tower.trunk.head(found["post_norm"][:, 0]), tower(pixels), rtol=0, atol=1e-5)
    patches = tower.trunk.forward_features(pixels)[:, tower.trunk.num_prefix_tokens :]
    torch.testing.assert_close(found["post_norm"][:, 1:], patches, rtol=0, atol=1e-5)
    assert teacher.description.class_row == "map"
    with pytest.raises(ConfigError, match="no tap called 'projected'"):
        teacher.tokens(crops, ["projected"])


TRUNKS = {
    "test_vit": "token",  # plain
    "test_vit2": "mean",  # a register, no class token, the norm behind the mean
    "test_vit3": "map",
    "test_vit4": "mean",
    "test_vit_relpos": "mean",
    "deit_tiny_distilled_patch16_224": "token",
    "vit_small_patch14_reg4_dinov2": "token",
    "vit_small_patch16_dinov3": "token",  # timm averages for its classifier; the norm is of every token
    "eva02_tiny_patch14_336": "mean",
    "vit_small_patch16_rope_mixed_224": "token",
    "vit_pe_core_tiny_patch16_384": "map",
    "vit_pe_spatial_tiny_patch16_512": None,  # without a final norm
    "vit_tiny_r_s16_p8_224": "token",
    "beit_base_patch16_224": "mean",
    "deit3_small_patch16_224": "token",
    "vit_medium_patch16_gap_240": "mean",
}


@pytest.mark.parametrize("model", TRUNKS)
@torch.no_grad()
def test_tokens_are_those_that_timm_computes(model, tmp_path):
    trunk = randomise(timm.create_model(model, num_classes=0))
    save_file(trunk.state_dict(), tmp_path / "weights")
    tag = timm.list_models(f"{model}.*", pretrained=True)
    teacher = load_teacher(f"timm:{tag[0] if tag else model}@{tmp_path / 'weights'}")
    described = teacher.description
    crops, class_row = crops_of(described.image_px), TRUNKS[model]
    pixels, prefix = normalise(crops, described.mean, described.std), trunk.num_prefix_tokens
    features = trunk.forward_features(pixels)
    found = teacher.tokens(crops, ["post_norm"] if class_row else ["block:2"])
    if class_row is None:
        assert "post_norm" not in described.widths
        return
    normed = trunk.fc_norm(features) if isinstance(trunk.norm, nn.Identity) else features
    expected = features[:, 0] if class_row == "token" else trunk.forward_head(features, pre_logits=True)
    torch.testing.assert_close(found["post_norm"][:, 0], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["post_norm"][:, 1:], normed[:, prefix:], rtol=1e-5, atol=1e-5)
    assert getattr(described, "class_row", "token") == class_row


@torch.no_grad()
def test_at_a_block_the_row_of_a_trunk_without_class_token_is_the_mean_of_its_patches(tmp_path):
    trunk = randomise(timm.create_model("test_vit3", num_classes=0))
    save_file(trunk.state_dict(), tmp_path / "weights")
    teacher = load_teacher(f"timm:test_vit3@{tmp_path / 'weights'}")
    crops = crops_of(teacher.description.image_px)
    found = teacher.tokens(crops, ["block:3"])["block:3"]
    pixels = normalise(crops, teacher.description.mean, teacher.description.std)
    expected = trunk.forward_intermediates(pixels, indices=[2], output_fmt="NLC", intermediates_only=True)[0]
    torch.testing.assert_close(found[:, 1:], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[:, 0], expected.mean(dim=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "px"),
    [
        ("vit_relpos_small_patch16_224", 128),
        ("test_vit3", 128),
        ("vit_small_patch16_dinov3", 128),
        ("eva02_tiny_patch14_336", 140),
        ("vit_small_patch14_reg4_dinov2", 196),
    ],
)
@torch.no_grad()
def test_another_size_is_that_of_timm_with_its_positions_resized(model, px, tmp_path):
    trunk = randomise(timm.create_model(model, num_classes=0))
    save_file(trunk.state_dict(), tmp_path / "weights")
    tag = timm.list_models(f"{model}.*", pretrained=True)[0]
    teacher = load_teacher(f"timm:{tag}@{tmp_path / 'weights'}", image_px=px)
    trunk.set_input_size((px, px))
    pixels = normalise(crops_of(px), teacher.description.mean, teacher.description.std)
    found = teacher.tokens(crops_of(px), ["post_norm"])["post_norm"]
    features = trunk.forward_features(pixels)
    token = getattr(teacher.description, "class_row", "token") == "token"
    expected = features[:, 0] if token else trunk.forward_head(features, pre_logits=True)
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-4, atol=1e-4)
    assert found.shape[1] == teacher.description.tokens == 1 + (px // teacher.description.patch_px) ** 2


def test_relative_positions_that_were_learned_for_one_grid_are_not_resized(tmp_path):
    save_file(timm.create_model("beit_base_patch16_224", num_classes=0).state_dict(), tmp_path / "weights")
    with pytest.raises(ConfigError, match="relative positions that were learned for one grid"):
        load_teacher(f"timm:beit_base_patch16_224.in22k_ft_in22k@{tmp_path / 'weights'}", image_px=128)


def test_a_large_tower_has_the_grid_of_a_base_student_at_196_pixels():
    outline = published.outline(split_name("openclip:ViT-L-14-quickgelu"), image_px=196)
    assert (outline.grid, outline.tokens, outline.widths["projected"]) == (14, 197, 768)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_trunk_in_lower_precision_comes_close(precision):
    tower, config = open_clip_tower("PE-Core-T-16-384")
    crops = crops_of(384)
    exact, lower = (
        teacher_of(tower, config, precision=each).tokens(crops, ["post_norm"])["post_norm"].float()
        for each in ("fp32", precision)
    )
    assert 0 < (lower - exact).norm() / exact.norm() < 3e-2


def test_the_listed_teachers_are_as_they_are_listed():
    for known in TEACHERS:
        card = describe_teacher(known.name)
        assert (card.crop_px, card.patch_px, card.grid, card.tokens) == (
            known.crop_px,
            known.patch_px,
            known.grid,
            known.tokens,
        )
        assert card.widths == known.widths
        if known.sha256:
            assert load_teacher(known.name).description.sha256 == known.sha256
        if known.licence:
            assert card.licence == known.licence


@pytest.mark.slow  # some 440 architectures
def test_every_architecture_is_usable_or_refused_with_a_reason():
    refused = {}
    for name in [f"openclip:{each}" for each in open_clip.list_models()] + [f"timm:{each}" for each in known_trunks()]:
        try:
            card = describe_teacher(name)
        except TeacherError as problem:
            refused[name] = str(problem)
            continue
        rows = int(card.grid.partition("x")[0])
        assert (card.tokens, card.crop_px) == (1 + rows**2, rows * card.patch_px), name
        assert len(card.widths) > 1, name
    assert all("cannot be a teacher: " in reason for reason in refused.values())
    assert not [name for name in refused if name.startswith("timm:")]
    kinds = {
        kind: sum(kind in reason or (kind == "resnet" and ":RN" in name) for name, reason in refused.items())
        for kind in REFUSED_OF_OPEN_CLIP
    }
    assert kinds == REFUSED_OF_OPEN_CLIP
    assert sum(kinds.values()) == len(refused)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("timm:resnet50", "is a convolutional network"),
        ("timm:naflexvit_base_patch16_siglip", "takes patches of any number and shape"),
        ("timm:samvit_base_patch16", "attends in windows"),
        ("timm:swin_base_patch4_window7_224", "merges its patches"),
        ("timm:xcit_small_12_p16_224", "not one stack of equal blocks over one grid"),
        ("openclip:convnext_base", "convolutional network"),
        ("openclip:MobileCLIP-S2", "convolutional but for its last stage"),
    ],
)
def test_other_networks_are_refused_with_the_reason(name, why):
    with pytest.raises(TeacherError, match=f"{name} cannot be a teacher: .*{why}.*Choose a vision transformer"):
        describe_teacher(name)
