"""timm's models on the command line: beside a run or by themselves, probed and segmented, or refused in one line."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from caev2.demo.masked_scenes import write_masked_scenes
from tests.commands.invoking import caev2, files_of, refusal

KNN = ("--kind", "knn", "--quiet", "--device", "cpu")


@pytest.fixture(scope="module")
def name(tmp_path_factory) -> str:
    """A small vision transformer that nobody trained, its weights in a file."""
    file = tmp_path_factory.mktemp("weights") / "test_vit.safetensors"
    torch.manual_seed(0)
    state = timm.create_model("test_vit", pretrained=False, img_size=64).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, file)
    return f"timm:test_vit@{file}"


def ask(command: str, *words: object) -> dict:
    done = caev2(command, *words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def names(found: dict) -> list[str]:
    return [one["name"] for one in found["subjects"]]


def test_a_model_stands_beside_its_random_start_and_nothing_is_written(images, name):
    before = files_of(images)
    found = ask("probe", name, images, *KNN, "--size", "64")
    assert names(found) == ["random start of timm:test_vit", "timm:test_vit"]
    start, model = found["subjects"]
    assert (model["role"], model["crop_px"], model["resize_px"]) == ("model", 64, 73)
    assert model["protocol"]["knn"]["pooling"] == "class"
    assert model["sha256"] != start["sha256"]
    assert names(ask("probe", name, images, *KNN, "--size", "64", "--only")) == ["timm:test_vit"]
    assert files_of(images) == before


def test_a_model_stands_beside_a_run(run, images, name):
    found = ask("probe", run, name, images, *KNN, "--size", "64")
    assert names(found) == [
        "random start of timm:test_vit", "random start", "student", "timm:test_vit", "teacher demo",
    ]  # fmt: skip
    assert found == json.loads((run / "result.json").read_text())


def test_features_of_a_model_are_kept_where_it_is_said(images, name, tmp_path):
    words = ("probe", name, images, *KNN, "--size", "64", "--cache", tmp_path / "kept")
    first = ask(*words)
    assert len(list((tmp_path / "kept").iterdir())) == 4
    assert ask(*words) == first


def test_a_model_of_timm_is_a_teacher_too(images, name):
    found = ask("probe", "--teacher", name, images, *KNN)
    assert names(found) == [f"teacher {name}"]
    assert found["subjects"][0]["crop_px"] == 160


def test_masks_are_drawn_from_the_tokens_of_a_model(name, tmp_path):
    write_masked_scenes(tmp_path, "train", 6, 0)
    scenes = write_masked_scenes(tmp_path, "val", 4, 0)
    words = ("--quiet", "--device", "cpu", "--epochs", "1", "--size", "64", "--only")
    found = ask("segment", name, scenes, *words)
    assert names(found) == ["timm:test_vit"]
    assert 0 < found["subjects"][0]["score"]["mean_iou"]["value"] < 1


def test_what_cannot_be_judged_is_refused_in_one_line(run, images, name, tmp_path):
    said = refusal("probe", "timm:test_vti", images, *KNN)
    assert "timm has no model called 'test_vti'. Did you mean 'test_vit'" in said
    said = refusal("probe", f"timm:test_resnet@{name.partition('@')[2]}", images, *KNN)
    assert "is no timm:test_resnet: for " in said
    assert "Give the right file after @" in refusal("probe", f"timm:test_vit@{tmp_path / 'gone'}", images, *KNN)
    said = refusal("probe", name, images, *KNN, "--size", "65")
    assert "patches of 16 pixels, so its image size cannot be 65" in said
    assert "--size cuts what belongs to a model of timm" in refusal("probe", run, images, *KNN, "--size", "64")
    assert "--ema judges what belongs to a run" in refusal("probe", name, images, *KNN, "--ema")
    assert "their edges would be black. Give --resize 64" in refusal(
        "probe", name, images, *KNN, "--size", "64", "--resize", "60"
    )
    assert "Name what to judge" in refusal("probe", Path("one"), Path("two"), images, *KNN)
