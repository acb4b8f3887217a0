"""Pairs of images and masks: one geometry for both, and what cannot be a pair is refused."""

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.functional import InterpolationMode, center_crop, resize

from caev2.errors import SourceError
from caev2.eval.segmentation.masks import MaskedCropping, open_masked_images


@pytest.fixture
def place(tmp_path):
    """Three train images and two val images of different shapes, with masks of 0 .. 4 and 255."""
    random = np.random.default_rng(0)
    for split, count in (("training", 3), ("validation", 2)):
        for number in range(count):
            shape = (20 + 7 * number, 31 - 4 * number)
            for kind in ("images", "annotations"):
                (tmp_path / kind / split).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 255, (*shape, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / split / f"{number}.png")
            mask = random.choice(np.array([0, 1, 2, 3, 4, 255], dtype=np.uint8), shape)
            Image.fromarray(mask).save(tmp_path / "annotations" / split / f"{number}.png")
    return tmp_path


def cropping(place, split="train", ignore=255, **more):
    source = open_masked_images(place, split)
    return MaskedCropping(
        **{"source": source, "size_px": 16, "resize_px": 18, "orientation": "exif", "ignore": ignore, **more}
    )


def test_image_and_mask_are_cut_by_one_geometry_that_of_torchvision(place):
    crops, labels = cropping(place).crops_of(range(3))
    assert (crops.shape, labels.shape) == ((3, 16, 16, 3), (3, 16, 16))
    for number in range(3):
        image = Image.open(place / "images" / "training" / f"{number}.png")
        mask = Image.open(place / "annotations" / "training" / f"{number}.png")
        theirs = center_crop(resize(image, 18, InterpolationMode.BICUBIC), 16)
        assert np.array_equal(crops[number].numpy(), np.asarray(theirs))
        theirs = center_crop(resize(mask, 18, InterpolationMode.NEAREST), 16)
        assert np.array_equal(labels[number].numpy(), np.asarray(theirs))


def test_where_nought_is_ignored_the_first_class_is_number_one(place):
    _, plain = cropping(place).crops_of(range(3))
    _, reduced = cropping(place, ignore=0).crops_of(range(3))
    for raw, label in ((0, 255), (1, 0), (4, 3), (255, 255)):
        assert (reduced[plain == raw] == label).all()


@pytest.mark.parametrize("mode", ["P", "I;16"])
def test_masks_of_other_kinds_mean_the_same(place, mode):
    _, plain = cropping(place).crops_of(range(3))
    for path in (place / "annotations" / "training").iterdir():
        numbers = np.asarray(Image.open(path))
        if mode == "P":
            image = Image.fromarray(numbers)
            image.putpalette(bytes(range(256)) * 3)
        else:
            image = Image.fromarray(numbers.astype(np.uint16))
        image.save(path)
    _, again = cropping(place).crops_of(range(3))
    assert np.array_equal(plain, again)


def test_names_decide_what_is_a_pair_whatever_their_endings(place):
    _, plain = cropping(place).crops_of(range(3))
    for path in (place / "images" / "training").iterdir():
        Image.open(path).save(path.with_suffix(".BMP"))
        path.unlink()
    _, again = cropping(place).crops_of(range(3))
    assert np.array_equal(plain, again)


def test_what_is_no_pair_is_refused(place):
    with pytest.raises(SourceError, match=r"There is no .*images/training. Segmentation needs"):
        open_masked_images(place / "images", "train")
    (place / "annotations" / "training" / "1.png").rename(place / "annotations" / "training" / "one.png")
    with pytest.raises(SourceError, match="training image '1' has no mask of the same name, nor have 1 more"):
        open_masked_images(place, "train")
    (place / "images" / "validation" / "0.png").unlink()
    with pytest.raises(SourceError, match=r"validation mask '0' has no image of the same name\. Give"):
        open_masked_images(place, "val")


def test_masks_that_cannot_be_used_are_refused_by_name(place):
    mask = place / "annotations" / "training" / "1.png"
    for content, said in (
        (np.zeros((27, 27, 3), dtype=np.uint8), "has the mode RGB, not one number a pixel"),
        (np.zeros((5, 6), dtype=np.uint8), "is of 6 by 5 pixels, its image of 27 by 27"),
        (np.full((27, 27), 300, dtype=np.uint16), "holds numbers above 255"),
    ):
        Image.fromarray(content).save(mask)
        with pytest.raises(SourceError, match=r"1\.png " + said):
            cropping(place).crops_of(range(3))
    mask.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    with pytest.raises(SourceError, match=r"1\.png cannot be decoded"):
        cropping(place).crops_of(range(3))
    (place / "images" / "training" / "0.png").write_bytes(b"text")
    with pytest.raises(SourceError, match=r"images/training/0\.png cannot be decoded"):
        cropping(place).crops_of(range(3))


def test_an_image_that_lies_otherwise_than_its_mask_is_refused_unless_the_tag_is_ignored(place):
    path = place / "images" / "training" / "0.png"
    image, exif = Image.open(path), Image.Exif()
    image.load()
    exif[0x0112] = 3  # upside down
    image.save(path, exif=exif)
    with pytest.raises(SourceError, match=r"0\.png has an EXIF orientation, and a mask has none"):
        cropping(place).crops_of(range(1))
    crops, _ = cropping(place, orientation="ignore").crops_of(range(1))
    assert len(crops) == 1
