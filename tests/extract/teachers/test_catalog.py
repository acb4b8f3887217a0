import shutil

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from caev2.errors import ConfigError, TeacherError
from caev2.extract.teachers.catalog import load_teacher, parse_name
from caev2.extract.teachers.names import DEFAULT_TEACHER
from caev2.recipe import to_mapping

OPENAI_SHA256 = "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"


def test_the_default_teacher_is_openais_clip_with_quick_gelu():
    name = parse_name(DEFAULT_TEACHER)
    assert (name.architecture, name.tag) == ("ViT-B-16-quickgelu", "openai")


def test_three_kinds_of_file_give_one_teacher(small_architecture, small_files):
    teachers = [load_teacher(f"openclip:{small_architecture}@{path}") for path in vars(small_files).values()]
    images = torch.full((1, 64, 64, 3), 90, dtype=torch.uint8)
    tokens = [teacher.tokens(images, ["projected"])["projected"] for teacher in teachers]
    for teacher, one in zip(teachers, tokens, strict=True):
        assert teacher.description == teachers[0].description
        assert torch.equal(one, tokens[0])


def test_a_description_holds_no_path(small_architecture, small_files):
    described = str(to_mapping(load_teacher(f"openclip:{small_architecture}@{small_files.torch}").description))
    assert f"openclip:{small_architecture}" in described
    assert "weights" not in described
    assert "/" not in described


def test_options_reach_the_teacher(small_architecture, small_files):
    name = f"openclip:{small_architecture}@{small_files.torch}"
    described = load_teacher(name, precision="bf16", image_px=96).description
    assert (described.precision, described.image_px, described.tokens) == ("bf16", 96, 37)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("opneclip:ViT-B-16/openai", "'opneclip' is unknown. Did you mean 'openclip'"),
        ("keras:vit_base", "'keras' is unknown"),
        ("ViT-B-16", "'ViT-B-16' is unknown. Did you mean 'openclip:ViT-B-16' or"),
        ("vit_base_patch14_dinov2.lvd142m", "Did you mean 'timm:vit_base_patch14_dinov2' or"),
        ("", "'' is unknown"),
        ("demo:large", "one demo teacher"),
        ("openclip:ViT-B16-quickgelu/openai", "no architecture called.*Did you mean 'ViT-B-16-quickgelu'"),
        ("openclip", "no architecture called None"),
        ("openclip:ViT-B-16-quickgelu/opnai", "no weights called 'opnai'.*Did you mean 'openai'"),
        ("openclip:ViT-B-16-quickgelu", "names no weights.*@PATH of a file, or /TAG .*openai"),
        ("openclip:ViT-S-16-alt/openai", "no weights called 'openai' for ViT-S-16-alt"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_the_nearest(name, message):
    with pytest.raises(ConfigError, match=message):
        parse_name(name)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("openclip:ViT-B-16/openai", "openclip:ViT-B-16-quickgelu/openai"),
        ("openclip:ViT-L-14/openai@ViT-L-14.pt", "openclip:ViT-L-14-quickgelu/openai@ViT-L-14.pt"),
    ],
)
def test_quick_gelu_weights_in_an_exact_gelu_architecture_are_refused(name, right):
    with pytest.raises(ConfigError, match=f"trained with quick GELU, but .* computes exact GELU. Write {right}"):
        parse_name(name)


def test_every_published_tag_is_refused_exactly_where_open_clip_would_warn():
    """open_clip computes the wrong GELU with a warning; here each such name has a right one."""
    for architecture, tag in open_clip.list_pretrained():
        if architecture.startswith(("RN", "convnext", "coca_ViT", "MobileCLIP-S", "MobileCLIP2-S")):
            continue  # no vision transformers with tokens of their own: refused for that
        trained = bool(open_clip.pretrained.get_pretrained_cfg(architecture, tag).get("quick_gelu"))
        computed = bool(open_clip.get_model_config(architecture).get("quick_gelu"))
        if trained and not computed and f"{architecture}-quickgelu" in open_clip.list_models():
            with pytest.raises(ConfigError, match=f"{architecture}-quickgelu/{tag}"):
                parse_name(f"openclip:{architecture}/{tag}")
        else:
            assert parse_name(f"openclip:{architecture}/{tag}").tag == tag


@pytest.mark.parametrize("kind", ["torchscript", "torch"])
def test_a_file_that_shows_quick_gelu_is_refused_by_an_exact_architecture(kind, small_architecture, small_files):
    exact = small_architecture.removesuffix("-quickgelu")
    path = getattr(small_files, kind)
    with pytest.raises(ConfigError, match=f"Write openclip:{small_architecture}@{path}"):
        load_teacher(f"openclip:{exact}@{path}")


def test_an_archive_with_exact_gelu_is_refused_by_a_quick_architecture(small_architecture, make_random_clip, tmp_path):
    exact = small_architecture.removesuffix("-quickgelu")
    model = open_clip.get_model_config(exact)
    make_random_clip.write_clip(make_random_clip.random_clip(model), tmp_path / "exact.pt")
    assert load_teacher(f"openclip:{exact}@{tmp_path}/exact.pt").description.name == f"openclip:{exact}"
    with pytest.raises(ConfigError, match=f"trained with exact GELU.*Write openclip:{exact}@"):
        load_teacher(f"openclip:{small_architecture}@{tmp_path}/exact.pt")


def test_a_file_that_may_be_openais_is_not_taken_for_an_exact_gelu_one(
    small_architecture, small_files, tmp_path, monkeypatch
):
    exact = small_architecture.removesuffix("-quickgelu")
    name = f"openclip:{exact}@{small_files.safetensors}"
    with pytest.raises(ConfigError, match=f"half precision.*write openclip:{small_architecture}@"):
        load_teacher(name)
    weights = load_file(small_files.safetensors)
    weights["visual.proj"][0, 0] += 1e-6  # as only training in full precision leaves behind
    save_file(weights, tmp_path / "full.safetensors")
    assert load_teacher(f"openclip:{exact}@{tmp_path}/full.safetensors").description.image_px == 64
    own = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, exact, {"own": own})
    named = load_teacher(f"openclip:{exact}/own@{small_files.safetensors}")
    assert named.description.mean == (0.5, 0.5, 0.5)


def test_statistics_of_pixels_come_with_the_tag():
    """Two published ViT-L/14 differ in them, so a file alone cannot say which."""
    with pytest.raises(ConfigError, match=r"differently normalised pixels.*openclip:ViT-L-14/.*@PATH or"):
        parse_name("openclip:ViT-L-14@clip.pt")
    assert parse_name("openclip:ViT-L-14/laion2b_s32b_b82k@clip.pt").tag == "laion2b_s32b_b82k"
    assert parse_name("openclip:ViT-L-14-quickgelu@clip.pt").tag is None


def test_a_file_named_as_published_must_be_the_published_one(small_files, tmp_path):
    shutil.copy(small_files.torchscript, tmp_path / "ViT-B-16.pt")
    with pytest.raises(TeacherError, match=f"not the published file.*the published one {OPENAI_SHA256}"):
        load_teacher(f"openclip:ViT-B-16-quickgelu/openai@{tmp_path}/ViT-B-16.pt")


def test_a_small_file_is_no_base_model(small_files):
    with pytest.raises(TeacherError, match=r"is no openclip:ViT-B-16-quickgelu.*768, the file 64"):
        load_teacher(f"openclip:ViT-B-16-quickgelu@{small_files.torchscript}")


@pytest.mark.slow
def test_a_whole_vit_b_16_loads_from_openais_kind_of_archive(make_random_clip, tmp_path):
    model = open_clip.get_model_config("ViT-B-16-quickgelu")
    make_random_clip.write_clip(make_random_clip.random_clip(model), tmp_path / "ViT-B-16.pt")
    teacher = load_teacher(f"openclip:ViT-B-16-quickgelu@{tmp_path}/ViT-B-16.pt")
    described = teacher.description
    assert (described.tokens, described.widths["projected"], described.widths["block:12"]) == (197, 512, 768)
    # of the example's seed 0, the same on every machine
    assert described.sha256 == "7895eaf2ce58fc83c02a6e670fb98c2b8f1324d2d7f9f6bba3043b031b28b617"
    images = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    tokens = teacher.tokens(images, ["projected"])["projected"]
    assert 0.5 < tokens.std() < 2
