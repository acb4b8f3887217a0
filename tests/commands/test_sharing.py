"""Evaluation by two processes: the numbers of one, said once."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caev2.demo.masked_scenes import write_masked_scenes
from tests.commands.invoking import caev2
from tests.commands.test_leaving import PROGRAM, start

CPU = ("--quiet", "--device", "cpu")
KINDS = tuple(part for kind in ("knn", "linear", "few-shot") for part in ("--kind", kind))


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """More images than one batch of features: 300 train and 140 val, in four classes."""
    folder, random = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    for split, count in (("train", 300), ("val", 140)):
        for number in range(count):
            pixels = random.integers(0, 190, (40, 40, 3), dtype=np.uint8)
            pixels[(number % 2) * 20 :][:20, :, number % 4 // 2] += 30
            place = folder / split / f"class-{number % 4}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{number:03d}.png")
    return folder


def finish(words) -> subprocess.CompletedProcess:
    process = start(words)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def by_two(*words: object) -> subprocess.CompletedProcess:
    return finish([PROGRAM, *words, "--gpus", 2])


def alone(*words: object) -> dict:
    done = caev2(*words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.slow
def test_two_ranks_count_what_one_counts_and_one_of_them_speaks(run, many, tmp_path):
    words = ("probe", run, many, *CPU, "--kind", "knn", "--only", "--json")
    done = by_two(*words, "--cache", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    found, kept = json.loads(done.stdout), stamps(tmp_path / "two")
    assert (found["train_images"], found["val_images"]) == (300, 140)
    assert found == json.loads((run / "result.json").read_text())
    assert found == alone(*words, "--no-cache")
    assert found == alone(*words, "--cache", tmp_path / "two")
    assert stamps(tmp_path / "two") == kept
    assert done.stderr == ""


def stamps(folder: Path) -> dict[Path, int]:
    found = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert found
    return found


@pytest.mark.slow
def test_every_kind_is_counted_alike_by_two_ranks(run, many, tmp_path):
    more = ("--kind", "official-linear", "--kind", "attentive", "--epochs", "2", "--batch-size", "150")
    words = ("probe", run, many, *CPU, *KINDS, *more, "--json")
    done = by_two(*words, "--cache", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == alone(*words, "--no-cache")
    assert json.loads(done.stdout) == alone(*words, "--cache", tmp_path / "two")


@pytest.mark.slow
def test_torchrun_starts_ranks_as_well(run, many):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    words = ("probe", run, many, *CPU, "--kind", "attentive", "--kind", "knn", "--epochs", "2", "--json")
    done = finish([*torchrun, "-m", "caev2.cli", *words])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == alone(*words)


@pytest.mark.slow
def test_two_ranks_segment_as_one_does(run, tmp_path):
    write_masked_scenes(tmp_path, "train", 140, 0)
    scenes = write_masked_scenes(tmp_path, "val", 6, 0)
    words = ("segment", run, scenes, *CPU, "--epochs", "1", "--only", "--no-cache", "--json")
    done = by_two(*words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == alone(*words)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "val" / "class-3" / "139.png").write_bytes(b"text"), "139.png cannot be decoded"),
        (lambda folder: shutil.rmtree(folder / "val" / "class-3"), "'class-3' is in one of them only"),
    ],
    ids=["an image of the second rank", "classes"],
)
def test_what_any_rank_is_refused_is_said_once(run, many, tmp_path, damage, said):
    images = shutil.copytree(many, tmp_path / "images")
    damage(images)
    done = by_two("probe", run, images, *CPU, *KINDS)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("caev2:") == 1, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_three_ranks_for_one_batch_are_no_harm(run, images):
    words = ("probe", run, images, *CPU, "--kind", "knn", "--json")
    done = finish([PROGRAM, *words, "--gpus", 3])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == alone(*words)
