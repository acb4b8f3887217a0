"""The evaluation transform against torchvision, and features in the order of the images."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from caev2.errors import CheckpointError, ConfigError, SourceError
from caev2.eval.crops import evaluation_crop
from caev2.eval.features import Reading, Subject, extract_features
from caev2.progress import Silent
from caev2.store.images import open_images
from tests.made_up import make_photographs

CPU = {"resize_px": 36, "device": "cpu"}


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(37, 50), (51, 33), (40, 40), (90, 31)])
def test_the_evaluation_crop_equals_torchvision_byte_for_byte(shape):
    pixels = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    theirs = Compose([Resize(36, InterpolationMode.BICUBIC), CenterCrop(32)])(image)
    assert np.array_equal(evaluation_crop(png(image), 32, 36), np.asarray(theirs))


def means(crops: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"mean": crops.float().mean((1, 2))}


def test_features_come_in_the_order_of_the_images_whatever_the_batch(tmp_path):
    source = open_images(make_photographs(tmp_path / "images", 10))
    subject = Subject(name="means", size_px=32, pool=means)
    one, other = (
        extract_features(subject, source, Reading(**CPU, batch=batch, workers=workers), Silent())
        for batch, workers in ((3, 0), (10, 1))
    )
    assert torch.equal(one.pooled["mean"], other.pooled["mean"])
    assert one.labels.tolist() == list(source.labels)
    last = torch.from_numpy(evaluation_crop(source.read(9), 32, 36))[None]
    assert torch.equal(one.pooled["mean"][9:], means(last)["mean"])


def test_an_undecodable_image_is_refused_by_name(tmp_path):
    folder = make_photographs(tmp_path / "images", 4)
    (folder / "class-1" / "003.png").write_bytes(b"text")
    subject = Subject(name="means", size_px=32, pool=means)
    with pytest.raises(SourceError, match=r"class-1/003.png cannot be decoded: no known image format"):
        extract_features(subject, open_images(folder), Reading(**CPU, workers=0), Silent())


def test_images_without_classes_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "flat.png")
    subject = Subject(name="means", size_px=32, pool=means)
    with pytest.raises(SourceError, match="has no classes"):
        extract_features(subject, open_images(tmp_path), Reading(**CPU), Silent())


@pytest.fixture
def rotated(tmp_path):
    """One oblong image whose EXIF says that it lies on its side, in a folder of images."""
    pixels = np.random.default_rng(1).integers(0, 255, (40, 64, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    (tmp_path / "class").mkdir()
    Image.fromarray(pixels).save(tmp_path / "class" / "side.png", exif=exif)
    return open_images(tmp_path), pixels


def first_rows(crops: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"rows": crops[:, 0].flatten(1).float()}


@pytest.mark.parametrize("workers", [0, 1])
def test_the_orientation_rule_decides_which_way_an_image_lies(rotated, workers):
    source, pixels = rotated
    subject = Subject(name="rows", size_px=32, pool=first_rows)
    for orientation, shown in (("ignore", pixels), ("exif", np.rot90(pixels, -1))):
        reading = Reading(resize_px=32, device="cpu", workers=workers, orientation=orientation)
        found = extract_features(subject, source, reading, Silent()).pooled["rows"]
        upright = torch.from_numpy(evaluation_crop(png(Image.fromarray(shown)), 32, 32))[None]
        assert torch.equal(found, first_rows(upright)["rows"]), orientation


@pytest.mark.parametrize(
    ("pooled", "said"),
    [
        (lambda crops: crops.float().mean((1, 2)).log() * float("nan"), "features of 3 of 3 images are not finite"),
        (lambda crops: torch.full((len(crops), 4), 0.3), "the first 3 images are all the same"),
    ],
    ids=["NaN", "collapsed"],
)
def test_features_that_mean_nothing_stop_at_the_first_batch(tmp_path, pooled, said):
    seen = []

    def pool(crops):
        seen.append(len(crops))
        return {"only": pooled(crops)}

    source = open_images(make_photographs(tmp_path / "images", 10))
    with pytest.raises(CheckpointError, match=said):
        extract_features(
            Subject(name="broken", size_px=32, pool=pool), source, Reading(**CPU, batch=3, workers=0), Silent()
        )
    assert seen == [3]


def test_equal_images_may_have_equal_features(tmp_path):
    (tmp_path / "images" / "grey").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (40, 40), (9, 9, 9)).save(tmp_path / "images" / "grey" / f"{number}.png")
    subject = Subject(name="means", size_px=32, pool=means)
    found = extract_features(subject, open_images(tmp_path / "images"), Reading(**CPU), Silent())
    assert found.pooled["mean"].tolist() == [[9.0] * 3] * 3


def test_crops_larger_than_the_resized_images_are_refused(tmp_path):
    source = open_images(make_photographs(tmp_path / "images", 3))
    subject = Subject(name="means", size_px=32, pool=means)
    with pytest.raises(ConfigError, match=r"resized to 31 pixels, and the crops of means have 32.*--resize 32 or more"):
        extract_features(subject, source, Reading(resize_px=31, device="cpu", workers=0), Silent())
