import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from caev2.errors import ConfigError, TeacherError
from caev2.extract.teachers.openclip import TowerConfig, build_teacher, resize_positions
from caev2.extract.teachers.teacher import normalise
from caev2.extract.teachers.weights import TowerFile, read_tower
from tests.extract.conftest import SMALL

PARITY = Path(__file__).parents[2] / "data" / "parity" / "clip_visual_tokens.safetensors"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def config(vision=SMALL["vision_cfg"], embed_dim=32, quick_gelu=True):
    return TowerConfig(vision=vision, embed_dim=embed_dim, quick_gelu=quick_gelu, mean=MEAN, std=STD)


def build(path, **options):
    return build_teacher(config(), read_tower(path), name="small", device="cpu", **options)


@pytest.fixture(scope="module")
def teacher(small_files):
    return build(small_files.torchscript)


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def parity(tmp_path_factory):
    """The reference's CLIP as the state dict it is, its images and its tokens."""
    with safe_open(PARITY, framework="pt") as file:
        numbers = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    path = tmp_path_factory.mktemp("parity") / "clip.safetensors"
    save_file({k.removeprefix("weight/"): v for k, v in numbers.items() if k.startswith("weight/")}, path)
    return path, numbers["input/images"], numbers["output/tokens"]


def parity_teacher(path, **options):
    vision = {"image_size": 64, "patch_size": 16, "width": 128, "layers": 3, "head_width": 64}
    return build_teacher(config(vision, **options), read_tower(path), name="parity", device="cpu")


def test_tokens_equal_those_of_the_reference_implementation(parity):
    path, pixels, expected = parity
    tokens = parity_teacher(path).tokens_of_pixels(pixels, ["projected"])["projected"]
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-5)


def test_exact_gelu_would_give_other_tokens(parity):
    path, pixels, expected = parity
    tokens = parity_teacher(path, quick_gelu=False).tokens_of_pixels(pixels, ["projected"])["projected"]
    assert (tokens - expected).abs().max() > 1e-3


def test_crops_go_through_the_same_code_as_pixels(teacher, images):
    taps = ["projected", "block:1"]
    from_crops, from_pixels = (
        teacher.tokens(images, taps),
        teacher.tokens_of_pixels(normalise(images, MEAN, STD), taps),
    )
    assert all(torch.equal(from_crops[tap], from_pixels[tap]) for tap in taps)


@pytest.fixture(scope="module")
def open_clip_model(small_clip):
    """open_clip's own model in float32 with the same weights."""
    model = open_clip.model.CLIP(**SMALL).eval()
    model.load_state_dict(small_clip.state_dict(), strict=False)
    return model


def test_the_class_token_is_the_embedding_that_open_clip_computes(teacher, images, open_clip_model):
    with torch.no_grad():
        expected = open_clip_model.encode_image(normalise(images, MEAN, STD))
    found = teacher.tokens(images, ["projected"])["projected"][:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_blocks_are_those_of_open_clip_counted_from_one(teacher, images, open_clip_model):
    with torch.no_grad():
        expected = open_clip_model.visual.forward_intermediates(
            normalise(images, MEAN, STD), output_fmt="NLC", output_extra_tokens=True
        )
    found = teacher.tokens(images, ["block:1", "block:2"])
    for number in (1, 2):
        patches, prefix = (expected[key][number - 1] for key in ("image_intermediates", "image_intermediates_prefix"))
        torch.testing.assert_close(found[f"block:{number}"], torch.cat([prefix, patches], dim=1), rtol=0, atol=1e-5)


def test_taps_follow_from_each_other(teacher, images, open_clip_model):
    found = teacher.tokens(images, ["block:2", "post_norm", "projected"])
    with torch.no_grad():
        normed = open_clip_model.visual.ln_post(found["block:2"])
        torch.testing.assert_close(found["post_norm"], normed, rtol=0, atol=1e-5)
        torch.testing.assert_close(found["projected"], normed @ open_clip_model.visual.proj, rtol=0, atol=1e-5)


def test_a_tap_alone_equals_the_tap_among_others(teacher, images):
    together = teacher.tokens(images, list(teacher.description.widths))
    assert {tap: tokens.shape[-1] for tap, tokens in together.items()} == teacher.description.widths
    for tap, tokens in together.items():
        alone = teacher.tokens(images, [tap])
        assert list(alone) == [tap]
        assert torch.equal(alone[tap], tokens)


def test_the_same_crops_give_the_same_bits(teacher, small_files, images):
    again = build(small_files.safetensors)
    assert again.description == teacher.description
    first, second = (one.tokens(images, ["projected"])["projected"] for one in (teacher, again))
    assert torch.equal(first, second)


def test_autocast_around_the_teacher_changes_nothing(teacher, images):
    expected = teacher.tokens(images, ["projected"])["projected"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(teacher.tokens(images, ["projected"])["projected"], expected)


def test_latents_carry_no_gradient_but_may_enter_a_loss(teacher, images):
    target = teacher.tokens(images, ["projected"])["projected"]
    prediction = torch.ones_like(target, requires_grad=True)
    (prediction * target).sum().backward()
    assert not target.requires_grad
    assert torch.equal(prediction.grad, target)


@pytest.mark.parametrize(("precision", "relative"), [("fp16", 4e-3), ("bf16", 3e-2)])
def test_lower_precisions_come_close_and_keep_norms_in_float32(small_files, images, precision, relative):
    exact = build(small_files.torchscript).tokens(images, ["projected"])["projected"]
    lower = build(small_files.torchscript, precision=precision)
    tokens = lower.tokens(images, ["projected"])["projected"]
    assert tokens.dtype == {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    assert 0 < (tokens.float() - exact).norm() / exact.norm() < relative
    state = lower._tower.state_dict()
    assert {name for name, tensor in state.items() if tensor.dtype == torch.float32} == {
        name for name in state if "ln_" in name or "embedding" in name
    }


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_tower_with_layer_scale_computes_in_lower_precision(images, precision):
    vision = {**SMALL["vision_cfg"], "ls_init_value": 0.1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = open_clip.model.CLIP(**{**SMALL, "vision_cfg": vision}).visual
    file = TowerFile(path=Path("memory"), weights=tower.state_dict(), quick_gelu=None)
    exact, lower = (
        build_teacher(config(vision), file, name="small", device="cpu", precision=p).tokens(images, ["projected"])[
            "projected"
        ]
        for p in ("fp32", precision)
    )
    assert (lower.float() - exact).norm() / exact.norm() < 3e-2


def test_another_image_size_keeps_the_identity_and_resizes_positions(teacher, small_files):
    larger = build(small_files.torchscript, image_px=96)
    assert larger.description.sha256 == teacher.description.sha256
    assert (larger.description.image_px, larger.description.tokens) == (96, 37)
    expected = resize_positions(teacher._tower.positional_embedding, 6)
    assert torch.equal(larger._tower.positional_embedding, expected)
    tokens = larger.tokens(torch.zeros(1, 96, 96, 3, dtype=torch.uint8), ["projected"])["projected"]
    assert tokens.shape == (1, 37, 32)
    assert tokens.isfinite().all()


def test_positions_are_interpolated_linearly_between_cell_centres():
    """By hand: from 2 cells to 4, the new centres lie at -1/4, 1/4, 3/4 and 5/4 of the old distance."""
    table = torch.tensor([[9.0], [0.0], [1.0], [10.0], [11.0]])  # class token, then 10·row + column
    steps = torch.tensor([0.0, 0.25, 0.75, 1.0])
    resized = resize_positions(table, 4)
    assert resized[0] == 9
    torch.testing.assert_close(resized[1:, 0].reshape(4, 4), 10 * steps[:, None] + steps[None])
    assert torch.equal(resize_positions(table, 2), table)


def test_a_position_table_of_no_square_grid_is_refused():
    with pytest.raises(TeacherError, match="6 rows is no square grid"):
        resize_positions(torch.zeros(6, 4), 2)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("RN50-quickgelu", "convolutional"), ("coca_ViT-B-32", "attentional pooler")],
)
def test_towers_without_tokens_of_their_own_are_refused(architecture, kind, small_files):
    model = open_clip.get_model_config(architecture)
    with pytest.raises(TeacherError, match=f"{architecture} cannot be a teacher: its image tower is .*{kind}"):
        build_teacher(config(model["vision_cfg"]), read_tower(small_files.torch), name=architecture, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 32}, r"class_embedding.*has 32, the file 64"),
        ({"layers": 3}, r"resblocks\.2\.attn.*the file nothing"),
        ({"layers": 1}, r"resblocks\.1\.attn.*has nothing, the file 192"),
        ({"patch_size": 32}, r"conv1\.weight.*64×3×32×32, the file 64×3×16×16"),
    ],
)
def test_a_file_of_another_architecture_is_refused(change, message, small_files):
    vision = {**SMALL["vision_cfg"], **change}
    with pytest.raises(TeacherError, match=message):
        build_teacher(config(vision), read_tower(small_files.torch), name="small", device="cpu")


@pytest.mark.parametrize("image_px", [8, 70])
def test_an_image_size_that_is_no_multiple_of_the_patch_is_refused(image_px, small_files):
    with pytest.raises(ConfigError, match=f"patches of 16 pixels.*cannot be {image_px}.*multiple of 16"):
        build(small_files.torch, image_px=image_px)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value, small_files, tmp_path):
    weights = load_file(small_files.safetensors)
    weights["visual.ln_pre.bias"][5] = value
    save_file(weights, tmp_path / "broken.safetensors")
    with pytest.raises(TeacherError, match=r"undefined numbers in visual\.ln_pre\.bias"):
        build(tmp_path / "broken.safetensors")


def test_the_description_is_plain_json(teacher):
    from caev2.recipe import to_mapping

    mapping = to_mapping(teacher.description)
    assert json.loads(json.dumps(mapping)) == mapping
    assert mapping["tokens"] == 17
    assert mapping["widths"] == {"projected": 32, "post_norm": 64, "block:1": 64, "block:2": 64}
