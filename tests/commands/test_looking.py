"""Looking at a store: its picture, and its teacher asked again."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from caev2.extract.recipes import RECIPES
from caev2.extract.run import extract
from caev2.extract.teachers.catalog import load_teacher
from caev2.recipe import load, override
from tests.commands.invoking import EXTRACT, caev2, refusal


def test_a_picture_shows_crops_beside_their_targets(made, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "store.png"
    done = caev2("store", "show", made / "store", "--images", made / "images", "--out", out, "--count", 3, "--json")
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["images"]) == 3
    pixels = np.asarray(Image.open(out).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 1000  # crops, not an empty page
    other = tmp_path / "other.png"
    caev2("store", "show", made / "store", "--images", made / "images", "--out", other, "--count", 3, "--seed", 1)
    assert other.read_bytes() != out.read_bytes()


def test_a_picture_of_what_is_not_there_is_refused(made, tmp_path):
    pytest.importorskip("matplotlib")
    show = ("store", "show", made / "store", "--out", tmp_path / "x.png", "--images")
    assert "has no target called 'projectd'. Did you mean 'projected'?" in refusal(
        *show, made / "images", "--target", "projectd"
    )
    assert "the path does not exist" in refusal(*show, tmp_path / "nowhere")
    assert "Cannot write" in refusal(
        "store", "show", made / "store", "--images", made / "images", "--out", "/proc/x.png"
    )
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("codec", ["float16", "int8"])
def test_the_teacher_says_again_what_is_stored(images, tmp_path, codec):
    settings = ("--codec", codec, "--set", "floor.relative_error=1", "--set", "floor.centred_cosine_p1=0")
    assert caev2("extract", images, tmp_path / "store", *EXTRACT, *settings).exit_code == 0
    done = caev2("store", "verify", tmp_path / "store", "--images", images, "--teacher", 5, "--json", "--device", "cpu")
    assert done.exit_code == 0, done.output
    again = json.loads(done.stdout)["teacher again, projected"]
    assert again["rows"] == 5
    assert again["class_cosine_min"] > 0.9999
    assert again["patch_cosine_min"] > 0.9999


def test_rows_of_another_teacher_are_found_though_every_digest_holds(images, tmp_path):
    """A store that was sound from the beginning, but made by a teacher that normalised its input in another way."""

    class Odd:
        def __init__(self, inner):
            self._inner, self.description = inner, inner.description

        def tokens(self, views, taps):
            return self._inner.tokens(255 - views, taps)

    recipe = override(load("demo", RECIPES), ["block_images=4", "teacher_batch=4"])
    extract(images, tmp_path / "store", dataclasses.replace(recipe, workers=0), teacher=Odd(load_teacher("demo")))
    verify = ("store", "verify", tmp_path / "store", "--images", images)
    assert caev2(*verify).exit_code == 0
    done = caev2(*verify, "--teacher", 4, "--device", "cpu")
    assert done.exit_code == 2
    assert "is not what the teacher says: the cosine of token" in done.stderr


def test_the_teacher_cannot_be_asked_without_pixels(made):
    assert "Give --images" in refusal("store", "verify", made / "store", "--teacher", 3)
