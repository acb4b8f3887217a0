"""The shipped teacher reads scenes it has never seen, and the script that made it pairs them with true captions."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss
from open_clip.transformer import QuickGELU, VisionTransformer
from safetensors import safe_open
from sklearn.neighbors import KNeighborsClassifier
from torch.nn.functional import normalize

import caev2.demo
from caev2.demo.scenes import COLOURS, GROUNDS, Split, draw_scene

WEIGHTS = Path(caev2.demo.__file__).parent / "weights" / "teacher.safetensors"
EXAMPLE = Path(__file__).parents[2] / "examples" / "train_demo_teacher.py"


def load_image_tower(path: Path) -> VisionTransformer:
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        weights = {name.removeprefix("visual."): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    sizes = {key: config[key] for key in ("width", "layers", "heads", "mlp_ratio")}
    tower = VisionTransformer(
        image_size=config["image_px"],
        patch_size=config["patch_px"],
        output_dim=config["embed_dim"],
        act_layer=QuickGELU if config["quick_gelu"] else torch.nn.GELU,
        **sizes,
    )
    tower.load_state_dict(weights)
    return tower.eval()


@torch.inference_mode()
def class_latents(tower: VisionTransformer, split: Split, count: int) -> tuple[np.ndarray, list[int]]:
    scenes = [draw_scene(9, split, index) for index in range(count)]
    with safe_open(WEIGHTS, "pt") as file:
        config = json.loads(file.metadata()["config"])
    mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
    pixels = torch.from_numpy(np.stack([scene.image for scene in scenes])).float() / 255
    return tower(((pixels - mean) / std).permute(0, 3, 1, 2)).numpy(), [scene.digit for scene in scenes]


def test_the_shipped_teacher_reads_digits_it_has_never_seen():
    tower = load_image_tower(WEIGHTS)
    neighbours = KNeighborsClassifier(20, metric="cosine").fit(*class_latents(tower, "train", 500))
    accuracy = neighbours.score(*class_latents(tower, "val", 250))
    assert accuracy > 0.88  # 95 % over 5,000 scenes, five standard errors of 250 above this


def test_the_shipped_file_is_small_float32_and_of_open_clip_names():
    assert WEIGHTS.stat().st_size < 10e6
    with safe_open(WEIGHTS, "pt") as file:
        names = list(file.keys())
        assert {file.get_tensor(name).dtype for name in names} == {torch.float32}
        trained = json.loads(file.metadata()["training"])
    assert all(name.startswith("visual.") for name in names)
    assert trained["percent_right"]["class linear"] > trained["percent_right"]["pixels linear"] + 30


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_demo_teacher", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_caption_is_true_of_a_scene_exactly_when_every_word_is(example):
    draws = np.random.default_rng(0)
    labels = torch.from_numpy(draws.integers(0, (3, 2, 2), (40, 3)))
    short = torch.from_numpy(draws.random(40) < 0.5)
    ids, true = example.write_captions(labels, short)
    said = [{example.WORDS[word] for word in row} - {"<pad>", "<end>", "a", "large", "on"} for row in ids.tolist()]
    for scene, (digit, colour, ground) in enumerate(labels.tolist()):
        seen = {example.DIGIT_WORDS[digit], tuple(COLOURS)[colour], GROUNDS[ground]}
        assert true[scene].tolist() == [words <= seen for words in said]
    assert all(len(words) == (1 if one else 3) for words, one in zip(said, short.tolist(), strict=True))


def test_the_end_of_a_caption_is_where_the_text_tower_looks(example):
    ids, _ = example.write_captions(torch.tensor([[9, 7, 15], [0, 0, 0]]), torch.tensor([False, True]))
    assert [example.WORDS[row[row.argmax()]] for row in ids] == ["<end>", "<end>"]


def test_the_loss_is_open_clips_when_every_caption_is_true_of_one_scene(example):
    image, text = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor(5.0)
    expected = ClipLoss()(normalize(image, dim=-1), normalize(text, dim=-1), scale)
    actual = example.contrastive_loss(image, text, scale, torch.eye(16, dtype=torch.bool))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)


def test_crops_keep_the_promised_share_of_a_scene_in_one_piece(example):
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    ramps = torch.stack([x, y, x]).expand(200, 3, 64, 64)  # each pixel says where it is
    cropped = example.crop_randomly(ramps, 0.5, torch.Generator().manual_seed(0))
    left, right = cropped[:, 0].amin((1, 2)), cropped[:, 0].amax((1, 2))
    top, bottom = cropped[:, 1].amin((1, 2)), cropped[:, 1].amax((1, 2))
    shares = (right - left) * (bottom - top) / 63**2
    assert left.min() >= 0
    assert right.max() <= 63
    assert 0.5 * 0.86 < shares.min() < 0.55  # a side that would stand out at aspect 4:3 is cut to the scene
    assert 0.9 < shares.max() <= 1


def test_no_jitter_leaves_the_scene_as_it_is(example):
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(example.jitter_colours(images, 0.0, torch.Generator()), images, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_small_fraction_of_the_training_writes_such_a_file(tmp_path):
    arguments = ["--out", str(tmp_path / "t.safetensors"), "--fraction", "0.002", "--probe-scenes", "100"]
    subprocess.run([sys.executable, str(EXAMPLE), *arguments, "--device", "cpu"], check=True)
    made, shipped = load_image_tower(tmp_path / "t.safetensors"), load_image_tower(WEIGHTS)
    for name, value in made.state_dict().items():
        assert value.shape == shipped.state_dict()[name].shape
        assert value.isfinite().all()
