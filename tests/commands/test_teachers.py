"""`caev2 teachers`: the list, one described by its name, and names that are nearly right."""

import json

import pytest

from caev2.extract.teachers.catalog import load_teacher
from caev2.extract.teachers.known import TEACHERS
from tests.commands.invoking import caev2, refusal


def described(name: str) -> dict:
    result = caev2("teachers", name, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_the_list_says_everything_of_every_teacher():
    listed = json.loads(caev2("teachers", "--json").stdout)
    assert list(listed) == [teacher.name for teacher in TEACHERS]
    for teacher in TEACHERS:
        assert listed[teacher.name]["widths"] == teacher.widths
        assert list(listed[teacher.name]["widths"]) == listed[teacher.name]["taps"]
    said = caev2("teachers").stdout
    assert "taps        projected (512), post_norm (768), block:1 to block:12 (768)" in said
    assert "caev2 teachers --fetch NAME" in said


def test_a_named_teacher_is_described_as_it_is_when_loaded():
    demo, card = load_teacher("demo").description, described("demo")
    assert (card["crop_px"], card["patch_px"], card["tokens"]) == (demo.image_px, demo.patch_px, demo.tokens)
    assert (card["widths"], card["identity"]) == (dict(demo.widths), demo.sha256)
    assert (tuple(card["mean"]), tuple(card["std"])) == (demo.mean, demo.std)
    assert card["cached"].endswith("teacher.safetensors")


@pytest.mark.parametrize(
    ("name", "tokens", "class_row", "weights"),
    [
        ("openclip:ViT-H-14-CLIPA/datacomp1b", 257, "the mean of the patches", "UCSC-VLAA/ViT-H-14-CLIPA-datacomp1B"),
        ("openclip:ViT-B-16-SigLIP/webli", 197, "the query of the tower's attention", "timm/ViT-B-16-SigLIP"),
        ("openclip:ViT-SO400M-14-SigLIP-384/webli", 730, "the query", "timm/ViT-SO400M-14-SigLIP-384"),
        ("timm:vit_giant_patch14_reg4_dinov2.lvd142m", 1370, "the class token", "vit_giant_patch14_reg4_dinov2"),
        ("openclip:ViT-B-16-quickgelu@mine.pt", 197, "the class token", "the file mine.pt"),
    ],
)
def test_any_name_is_described_without_its_weights(name, tokens, class_row, weights):
    card = described(name)
    assert card["tokens"] == tokens
    assert class_row in card["class_row"]
    assert weights in card["weights"]


def test_an_architecture_alone_is_described_with_the_weights_there_are():
    card = described("timm:vit_base_patch14_dinov2")
    assert card["tags"] == ["lvd142m"]
    assert card["mean"] == [0.485, 0.456, 0.406]
    said = caev2("teachers", "openclip:ViT-L-14").stdout
    assert "mean       as the tag says" in said
    assert "tags       openai, laion400m_e31" in said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-16", "Did you mean 'openclip:ViT-B-16' or"),
        ("vit_base_patch14_dinov2", "Did you mean 'timm:vit_base_patch14_dinov2' or"),
        ("opneclip:ViT-B-16/openai", "Did you mean 'openclip'?"),
        ("openclip:VIT-B-16/openai", "no architecture called 'VIT-B-16'. Did you mean 'ViT-B-16'"),
        ("openclip:ViT-B-16-SigLIP/webly", "no weights called 'webly' for ViT-B-16-SigLIP. Did you mean 'webli'?"),
        ("timm:vit_base_patch14_dinov2.lvd", "Did you mean 'lvd142m'?"),
        ("openclip:ViT-B-16/openai", "Write openclip:ViT-B-16-quickgelu/openai"),
        ("openclip:RN50/openai", "cannot be a teacher: its image tower is a convolutional network"),
        ("timm:vit", "no vision transformer called 'vit'"),
    ],
)
def test_a_name_that_cannot_be_is_answered_with_what_can(name, message):
    assert message in refusal("teachers", name)
