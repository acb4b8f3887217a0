"""What odd, missing and unwritable files get."""

import contextlib
import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caev2.store.manifest import read_manifest
from tests.commands.invoking import (
    EXTRACT,
    caev2,
    files_of,
    make_images,
    refusal,
    train,
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "There is no image in"),
        (lambda path: None, "the path does not exist. Give a folder of images"),
        (lambda path: path.write_text("x"), "is a file. Give the folder that the images lie in"),
    ],
    ids=["empty", "missing", "file"],
)
def test_images_that_are_not_there_are_refused_by_every_command(made, tmp_path, make, message):
    images = tmp_path / "images"
    make(images)
    for command in (
        ("extract", images, tmp_path / "store", *EXTRACT),
        train(made / "store", tmp_path / "run", images),
        ("store", "verify", made / "store", "--images", images),
        ("probe", made / "run", images, "--device", "cpu"),
    ):
        assert message in refusal(*command)
    assert {path.name for path in tmp_path.iterdir()} <= {"images"}


def test_files_that_are_no_images_keep_their_row_and_their_reason(tmp_path):
    images = make_images(tmp_path / "images") / "train"
    (images / "class-0" / "text.png").write_text("no image")
    Image.new("RGB", (200, 200)).save(images / "class-1" / "short.jpg")
    whole = (images / "class-1" / "short.jpg").read_bytes()
    (images / "class-1" / "short.jpg").write_bytes(whole[: len(whole) // 2])
    assert "1 of 12 images cannot be used, more than the allowed share of 0.05" in refusal(
        "extract", images, tmp_path / "store", *EXTRACT
    )
    done = caev2("extract", images, tmp_path / "store", *EXTRACT, "--set", "max_failed=0.5", "--json")
    reasons = dict(json.loads(done.stdout)["failures"])
    assert reasons.keys() == {"class-0/text.png", "class-1/short.jpg"}
    assert reasons["class-0/text.png"] == "no known image format"
    assert reasons["class-1/short.jpg"].startswith("damaged")
    assert dict(read_manifest(tmp_path / "store").failures) == reasons
    assert (
        "undecodable    2 (class-0/text.png: no known image format" in caev2("store", "info", tmp_path / "store").stdout
    )


def test_odd_images_are_extracted_and_trained_on(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(np.arange(6300, dtype=np.uint16).reshape(70, 90) * 10).save(images / "deep.png")
    colours.convert("CMYK").save(images / "cmyk.jpg")
    colours.quantize(16).save(images / "palette.png")
    colours.convert("RGBA").save(images / "alpha.png")
    colours.save(images / "turned.jpg", exif=turned)
    Image.new("RGB", (1, 1), (9, 9, 9)).save(images / "dot.png")
    done = caev2("extract", images, tmp_path / "store", *EXTRACT, "--json")
    assert json.loads(done.stdout)["failures"] == []
    assert caev2(*train(tmp_path / "store", tmp_path / "run", images)).exit_code == 0
    assert caev2("store", "verify", tmp_path / "store", "--images", images).exit_code == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_changed_since_extraction_is_named(made, tmp_path, workers):
    images = shutil.copytree(made / "images", tmp_path / "images")
    shutil.copy(images / "train/class-0/2.png", images / "train/class-0/0.png")
    said = refusal(*train(made / "store", tmp_path / "run", images, "--set", f"workers={workers}"))
    assert "class-0/0.png" in said
    assert "is not the file that the teacher saw" in said
    assert "Traceback" not in said


def test_an_undecodable_image_of_an_evaluation_is_named(made, tmp_path):
    images = shutil.copytree(made / "images", tmp_path / "images")
    (images / "val/class-0/0.png").write_bytes(b"no image")
    said = refusal("probe", "--pixels", "8", images, "--kind", "knn", "--device", "cpu", "--quiet")
    assert "val/class-0/0.png cannot be decoded: no known image format" in said


# places to write to


@pytest.mark.parametrize("below", ["file/store", "file"])
def test_an_output_that_cannot_be_written_is_refused_and_left_alone(made, images, tmp_path, below):
    (tmp_path / "file").write_text("mine")
    for command in (
        ("extract", images, tmp_path / below, *EXTRACT),
        train(made / "store", tmp_path / below, images),
    ):
        assert str(tmp_path / "file") in refusal(*command)
    assert files_of(tmp_path) == {"file": b"mine"}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a file system that refuses everyone, /proc, is Linux's")
def test_a_file_system_that_takes_nothing_is_refused(made, images):
    assert "Cannot write /proc/store" in refusal("extract", images, "/proc/store", *EXTRACT)
    assert "Cannot write /proc/run" in refusal(*train(made / "store", "/proc/run", images))


@contextlib.contextmanager
def small_files():
    """No file may grow beyond 20 kB: what a full disk does, in the one way that needs no privileges.

    Around a few lines only: pytest writes its own output between tests, perhaps into a longer file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_leaves_nothing_half_written(made, images, tmp_path):
    with small_files():
        assert "Cannot write" in refusal("extract", images, tmp_path / "store", *EXTRACT)
        assert "Cannot write" in refusal(*train(made / "store", tmp_path / "run", images))
    assert not list((tmp_path / "store").rglob("c/*"))
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert caev2("extract", images, tmp_path / "store", *EXTRACT).exit_code == 0
    assert files_of(tmp_path / "store") == files_of(made / "store")
    assert caev2(*train(made / "store", tmp_path / "run", images)).exit_code == 0
    assert (tmp_path / "run/log.jsonl").read_bytes().count(b"\n") == (made / "run/log.jsonl").read_bytes().count(b"\n")
