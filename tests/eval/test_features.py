"""The evaluation transform against torchvision, and features in the order of the images."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from caev2.errors import SourceError
from caev2.eval.features import Subject, evaluation_crop, extract_features
from caev2.progress import Silent
from caev2.store.images import open_images
from tests.made_up import make_photographs


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
    options = {"resize_px": 36, "device": "cpu", "progress": Silent()}
    one = extract_features(subject, source, batch=3, workers=0, **options)
    other = extract_features(subject, source, batch=10, workers=1, **options)
    assert torch.equal(one.pooled["mean"], other.pooled["mean"])
    assert one.labels.tolist() == list(source.labels)
    last = torch.from_numpy(evaluation_crop(source.read(9), 32, 36))[None]
    assert torch.equal(one.pooled["mean"][9:], means(last)["mean"])


def test_an_undecodable_image_is_refused_by_name(tmp_path):
    folder = make_photographs(tmp_path / "images", 4)
    (folder / "class-1" / "003.png").write_bytes(b"text")
    subject = Subject(name="means", size_px=32, pool=means)
    with pytest.raises(SourceError, match=r"class-1/003.png cannot be decoded: no known image format"):
        extract_features(subject, open_images(folder), resize_px=36, device="cpu", progress=Silent(), workers=0)


def test_images_without_classes_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "flat.png")
    subject = Subject(name="means", size_px=32, pool=means)
    with pytest.raises(SourceError, match="has no classes"):
        extract_features(subject, open_images(tmp_path), resize_px=36, device="cpu", progress=Silent())
