"""`caev2 show`: pictures of a run."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from caev2.eval.pictures.run import similarity
from caev2.pretrain.student.model import build
from caev2.pretrain.student.sizes import SIZES
from caev2.pretrain.weights.official import to_official
from tests.commands.invoking import caev2, refusal, train

CPU = ("--quiet", "--device", "cpu")


@pytest.fixture(autouse=True)
def _plots():
    pytest.importorskip("matplotlib")


def shown(images) -> list:
    return sorted((images / "val" / "class-0").iterdir())[:2]


def show(*arguments) -> dict:
    done = caev2("show", *arguments, *CPU, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def colours_of(path) -> int:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return len(np.unique(pixels.reshape(-1, 3), axis=0))


def test_a_run_is_shown_beside_its_teacher(run, images, tmp_path):
    found = show(run, *shown(images), "--out", tmp_path / "out", "--neighbours", images, "--count", "3")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "patches.png", "attention.png", "similarity.png", "neighbours.png",
    }  # fmt: skip
    for path in (tmp_path / "out").iterdir():
        assert colours_of(path) > 100, path
    assert found["teacher"] == "demo"
    assert found["teacher_not_available"] is None
    assert found["patch"] == [4, 4]
    assert [len(each) for each in found["nearest"].values()] == [3, 3]
    said = caev2("show", run, shown(images)[0], "--out", tmp_path / "out", *CPU).stdout
    assert "row 4, column 4" in said


def test_a_run_whose_teacher_is_nowhere_says_why(tmp_path, images):
    torch.save({"model": to_official(build(SIZES["tiny"], seed=3).state_dict())}, tmp_path / "official.pth")
    assert caev2("import", tmp_path / "official.pth", tmp_path / "run").exit_code == 0
    found = show(tmp_path / "run", shown(images)[0], "--out", tmp_path / "out", "--patch", "0,13")
    assert found["teacher"] is None
    assert "made from a foreign checkpoint and records no teacher" in found["teacher_not_available"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"patches.png", "attention.png", "similarity.png"}
    ask = ("show", tmp_path / "run", shown(images)[0], "--out", tmp_path / "more", "--teacher", "demo", *CPU)
    assert "records no teacher" in refusal(*ask)
    assert not (tmp_path / "more").exists()


def test_whitened_targets_have_no_basis_in_common_with_the_teachers_latents(made, images, tmp_path):
    whitened = tmp_path / "whitened"
    settings = ("--set", "loss.target_norm=whiten", "--set", "loss.distance=mse", "--set", "epochs=1")
    assert caev2(*train(made / "store", whitened, images, *settings)).exit_code == 0
    found = show(whitened, shown(images)[0], "--out", tmp_path / "out")
    assert found["teacher"] is None
    assert "the student learns whitened latents" in found["teacher_not_available"]


def test_another_patch_is_another_picture(run, images, tmp_path):
    for name, patch in (("one", "0,0"), ("other", "7,7")):
        show(run, *shown(images), "--out", tmp_path / name, "--patch", patch)
    one, other = ((tmp_path / name / "similarity.png").read_bytes() for name in ("one", "other"))
    assert one != other
    same = [(tmp_path / name / "attention.png").read_bytes() for name in ("one", "other")]
    assert same[0] == same[1]


def test_a_patch_is_like_itself_and_others_by_their_cosine():
    grid = torch.randn(2, 3, 3, 8, generator=torch.Generator().manual_seed(0))
    found = similarity(grid, (1, 2))
    assert torch.allclose(found[:, 1, 2], torch.ones(2))
    wanted = torch.nn.functional.cosine_similarity(grid[1, 0, 0], grid[1, 1, 2], dim=0)
    assert torch.allclose(found[1, 0, 0], wanted)


def test_what_cannot_be_shown_is_refused_and_nothing_is_written(made, run, images, tmp_path):
    one, out = shown(images)[0], tmp_path / "out"
    ask = ("show", run, one, "--out", out, *CPU)
    assert "There is no patch at row 8, column 0: this student has 8 x 8" in refusal(*ask, "--patch", "8,0")
    assert "'middle' is no patch; give its row and column" in refusal(*ask, "--patch", "middle")
    assert "the path does not exist" in refusal(*ask, "--neighbours", tmp_path / "nowhere")
    assert "it has no run.json" in refusal("show", made / "store", one, "--out", out, *CPU)
    (tmp_path / "text.png").write_text("words")
    assert "text.png cannot be shown" in refusal("show", run, tmp_path / "text.png", "--out", out, *CPU)
    assert "missing.png" in refusal("show", run, tmp_path / "missing.png", "--out", out, *CPU)
    assert "Missing argument 'IMAGE...'" in refusal("show", run, "--out", out)
    assert not out.exists()
