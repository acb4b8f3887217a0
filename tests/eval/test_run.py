"""Probing: what is easy to see is found, what is not there is not, and a broken data set is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from caev2.errors import CheckpointError, SourceError
from caev2.eval.features import Subject
from caev2.eval.run import probe, save_result
from caev2.eval.subjects import open_run, open_subject
from caev2.extract.run import extract
from caev2.pretrain.run import pretrain
from tests.made_up import EXTRACT, PRETRAIN, PatchMeans, make_photographs


@pytest.fixture
def colours(tmp_path):
    """Reddish and bluish noise, 40 train and 20 val images."""
    random = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 20)):
        for number in range(count):
            pixels = random.integers(0, 200, (36, 36, 3), dtype=np.uint8)
            pixels[..., 2 * (number % 2)] += 55
            folder = tmp_path / "colours" / split / ("red", "blue")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "colours"


def mean_colour(crops):
    return {"useless": torch.ones(len(crops), 2), "mean": crops.float().mean((1, 2))}


def first_pixel_of_green(crops):
    return {"green": crops[:, :4, 0, 1].float()}


def test_a_visible_difference_is_found_and_the_useful_pooling_is_chosen(colours):
    result = probe(Subject(name="mean", size_px=32, pool=mean_colour), colours)
    assert result.accuracy["linear"].value == 1.0
    assert result.protocol["linear"]["pooling"] == "mean"
    assert (result.train_images, result.val_images, result.classes) == (40, 20, 2)


def test_features_that_know_nothing_are_at_chance(colours):
    result = probe(Subject(name="green", size_px=32, pool=first_pixel_of_green), colours)
    for accuracy in result.accuracy.values():
        assert accuracy.low < 0.5 < accuracy.high


def test_a_split_that_is_missing_or_has_other_classes_is_refused(colours, tmp_path):
    subject = Subject(name="mean", size_px=32, pool=mean_colour)
    with pytest.raises(SourceError, match=r"there is no .*train"):
        probe(subject, tmp_path)
    (colours / "val" / "red").rename(colours / "val" / "rosé")
    with pytest.raises(SourceError, match="in one of them only"):
        probe(subject, colours)


def test_a_run_is_probed_with_its_last_weights(colours, tmp_path):
    images = make_photographs(tmp_path / "images", 20)
    extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    pretrain(tmp_path / "store", tmp_path / "run", PRETRAIN, images=images)
    subject = open_subject(run=tmp_path / "run")
    result = probe(subject, colours)
    assert result.accuracy["linear"].low > 0.5  # a student of mean colours tells red from blue
    written = json.loads(save_result(result, tmp_path / "run").read_text())
    assert written["accuracy"]["knn"]["value"] == result.accuracy["knn"].value


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="There is no run at"):
        open_run(tmp_path, "cpu")
