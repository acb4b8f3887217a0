"""The photographs are the shipped ones, whole and unchanged."""

import sys

import numpy as np
import pytest
import skimage.data
from PIL import Image
from sklearn.datasets import load_sample_image

from caev2.demo.photographs import (
    PHOTOGRAPH_FILES,
    PICTURE_PHOTOGRAPHS,
    photographs,
    shipped_file,
    write_photographs,
)
from caev2.errors import ConfigError, OutputError


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "retina", "rocket"])
def test_colour_photographs_are_those_that_scikit_image_loads(name):
    assert np.array_equal(photographs()[name], getattr(skimage.data, name)())


@pytest.mark.parametrize(("name", "theirs"), [("hubble", "hubble_deep_field"), ("ihc", "immunohistochemistry")])
def test_shortened_names_mean_the_photographs_that_scikit_image_loads(name, theirs):
    assert np.array_equal(photographs()[name], getattr(skimage.data, theirs)())


@pytest.mark.parametrize("name", ["brick", "camera", "coins", "grass", "gravel", "moon"])
def test_grey_photographs_have_three_channels_as_scikit_image_loads_its_one(name):
    grey = getattr(skimage.data, name)()
    for channel in np.moveaxis(photographs()[name], -1, 0):
        assert np.array_equal(channel, grey)


@pytest.mark.parametrize("name", ["china", "flower"])
def test_sample_images_are_those_that_scikit_learn_loads(name):
    assert np.array_equal(photographs()[name], load_sample_image(f"{name}.jpg"))


def test_names_are_sorted_and_include_those_for_pictures():
    names = list(photographs())
    assert names == sorted(PHOTOGRAPH_FILES)
    assert set(PICTURE_PHOTOGRAPHS) < set(names)


def test_shared_pixels_cannot_be_changed_by_one_of_their_users():
    with pytest.raises(ValueError, match="read-only"):
        photographs()["moon"][0, 0] = 0


def test_written_files_are_copies_byte_for_byte(tmp_path):
    paths = write_photographs(tmp_path / "made" / "here")
    assert [path.stem for path in paths] == list(PHOTOGRAPH_FILES)
    for path in paths:
        assert path.read_bytes() == shipped_file(path.stem).read_bytes()
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), photographs()[path.stem])


def test_an_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="choose a writable folder"):
        write_photographs(tmp_path / "file")


def test_without_scikit_image_the_user_is_told_what_to_install_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.data", None)  # what an absent package does to an import
    with pytest.raises(ConfigError, match=r'pip install "caev2\[demo,plots\]"'):
        write_photographs(tmp_path / "out")
    assert not (tmp_path / "out").exists()
