"""Stores that keep their crops: the teacher saw what is kept, and nobody needs the images any more."""

import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from caev2.errors import PixelDrift, SourceError, StoreCorrupt, StoreMismatch
from caev2.extract.run import extract
from caev2.pretrain.run import pretrain
from caev2.pretrain.weights.checkpoint import latest_checkpoint, read_checkpoint
from caev2.store.images import open_images
from caev2.store.layout import crop_path
from caev2.store.pixels.crops import StoredCrops
from caev2.store.pixels.decode import decode_rgb
from caev2.store.pixels.jpeg import JpegReader
from caev2.store.pixels.replay import ViewReplay, open_crops
from caev2.store.pixels.views import draw_view, render_view
from caev2.store.reader import Store
from caev2.store.verify import verify_images, verify_store
from tests.made_up import EXTRACT, SIZE_PX, PatchMeans, make_photographs
from tests.made_up_pretrain import PRETRAIN

KINDS = ("raw", "jpeg")


def recipe(kind):
    return dataclasses.replace(EXTRACT, crops=kind)


def files_of(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with `images`, one of which is none, and a store of each kind."""
    folder = tmp_path_factory.mktemp("made")
    images = make_photographs(folder / "images", 20)
    (images / "class-0" / "004.png").write_bytes(b"no image")
    for kind in KINDS:
        extract(images, folder / kind, recipe(kind), teacher=PatchMeans())
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_saw_the_very_crops_that_are_kept(made, kind):
    store, source, teacher = Store(made / kind), open_images(made / "images"), PatchMeans()
    kept = StoredCrops(store)
    for image in map(int, store.valid_images):
        pixels = decode_rgb(source.read(image))
        for view in range(2):
            cut = render_view(pixels, draw_view(EXTRACT.views, source.keys[image], view, pixels), SIZE_PX)
            crop = kept.crop(view, image)
            if kind == "raw":
                assert np.array_equal(crop, cut)
            else:
                file = io.BytesIO()
                Image.fromarray(cut).save(file, "JPEG", quality=95, subsampling=0)
                assert np.array_equal(crop, np.asarray(Image.open(io.BytesIO(file.getvalue()))))
                assert store.read_crop(view, image) == file.getvalue()
            wanted = teacher.tokens(torch.from_numpy(crop.copy())[None], ["projected"])["projected"][0]
            np.testing.assert_allclose(store.read_rows("projected", view, [image])[0], wanted, atol=1e-3)
    assert kept.drifted is None
    assert verify_store(store).problems == ()
    assert verify_images(store, ViewReplay(store, source)) == ()


def test_raw_crops_change_no_target(made, tmp_path):
    extract(made / "images", tmp_path / "plain", EXTRACT, teacher=PatchMeans())
    plain, raw, jpeg = files_of(tmp_path / "plain"), files_of(made / "raw"), files_of(made / "jpeg")
    shards = [path for path in plain if path.startswith("targets/") and "/c/" in path]
    assert all(plain[path] == raw[path] for path in shards)
    assert any(plain[path] != jpeg[path] for path in shards)  # the teacher saw other pixels


@pytest.mark.parametrize("kind", KINDS)
def test_training_needs_no_images_and_is_what_it_would_be_with_them(made, tmp_path, kind, monkeypatch):
    pretrain(made / kind, tmp_path / "alone", PRETRAIN)
    source = open_images(made / "images")
    monkeypatch.setattr("caev2.pretrain.learning.lesson.open_crops", lambda store, images: ViewReplay(store, source))
    pretrain(made / kind, tmp_path / "replayed", PRETRAIN)
    runs = (tmp_path / "alone", tmp_path / "replayed")
    first, second = (read_checkpoint(latest_checkpoint(run / "checkpoints").path)[0] for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_crops_and_images_the_user_is_told_both_ways_out(made, tmp_path):
    extract(made / "images", tmp_path / "plain", EXTRACT, teacher=PatchMeans())
    with pytest.raises(SourceError, match=r"Give --images, .* --crops jpeg or raw needs none"):
        pretrain(tmp_path / "plain", tmp_path / "run", PRETRAIN)
    assert not (tmp_path / "run").exists()
    with pytest.raises(StoreMismatch, match="keeps no crops"):
        StoredCrops(Store(tmp_path / "plain"))
    with pytest.raises(StoreMismatch, match="image 2 has no valid row"):
        open_crops(Store(made / "raw"), None).crop(0, 2)


def said_or_sound(store: Path, image: int, sound: np.ndarray) -> bool:
    """Whether a crop of view 1 is the right one, or the message names it."""
    try:
        return np.array_equal(StoredCrops(Store(store)).crop(1, image), sound)
    except StoreCorrupt as problem:
        return f"crop of image {image}, view 1" in str(problem)


@pytest.mark.parametrize("kind", KINDS)
def test_no_changed_byte_is_taken_for_pixels(made, tmp_path, kind):
    store = shutil.copytree(made / kind, tmp_path / "store")
    sound = {(view, image): StoredCrops(Store(store)).crop(view, image) for view in (0, 1) for image in (0, 5, 19)}
    random = np.random.default_rng(0)
    path = store / crop_path(1, 0)
    whole = path.read_bytes()
    for _ in range(60):
        bit = int(random.integers(len(whole) * 8))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(damaged))
        assert any("is damaged" in problem for problem in verify_store(Store(store)).problems)
        for image in (0, 5):
            assert said_or_sound(store, image, sound[1, image])
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreCorrupt):
        [StoredCrops(Store(store)).crop(1, image) for image in range(8) if image != 2]
    shutil.copyfile(store / crop_path(0, 0), path)  # sound in itself, of another view
    with pytest.raises(StoreCorrupt):
        StoredCrops(Store(store)).crop(1, 0)
    path.unlink()
    with pytest.raises(StoreCorrupt, match="cannot be read"):
        StoredCrops(Store(store)).crop(1, 0)


def test_another_decoder_is_warned_of_and_other_pixels_are_refused(made, monkeypatch):
    def shifted(by):
        def read(self, data, into):
            pixels = np.asarray(Image.open(io.BytesIO(data))).astype(int)
            into[...] = (pixels + by(pixels)).clip(0, 255)

        return read

    monkeypatch.setattr(
        JpegReader, "read", shifted(lambda pixels: np.arange(pixels.size).reshape(pixels.shape) % 97 == 0)
    )
    kept = StoredCrops(Store(made / "jpeg"))
    kept.crop(0, 0)
    assert kept.drifted == "class-0/000.png"
    monkeypatch.setattr(JpegReader, "read", shifted(lambda pixels: 5))
    with pytest.raises(PixelDrift, match="decodes to other pixels than the teacher saw"):
        StoredCrops(Store(made / "jpeg")).crop(0, 0)


def test_interrupted_it_ends_in_the_same_bytes(made, tmp_path):
    class Dies(PatchMeans):
        left = 7

        def tokens(self, images, taps):
            self.left -= 1
            if self.left < 0:
                raise ZeroDivisionError
            return super().tokens(images, taps)

    with pytest.raises(ZeroDivisionError):
        extract(made / "images", tmp_path / "store", recipe("jpeg"), teacher=Dies())
    extract(made / "images", tmp_path / "store", dataclasses.replace(recipe("jpeg"), workers=2), teacher=PatchMeans())
    assert files_of(tmp_path / "store") == files_of(made / "jpeg")


def test_a_store_with_and_one_without_crops_are_two_stores(made, tmp_path):
    store = shutil.copytree(made / "jpeg", tmp_path / "store")
    with pytest.raises(StoreMismatch, match="its crops is 'jpeg', this command asks for None"):
        extract(made / "images", store, EXTRACT, teacher=PatchMeans())


@pytest.mark.parametrize("view", [0, 1])
def test_a_crop_that_differs_is_noticed_in_any_view_and_images_are_decoded_once(made, monkeypatch, view):
    store, source = Store(made / "raw"), open_images(made / "images")
    other, found, decoded = int(store.valid_images[-1]), store.view_value, []

    def changed(field, at, image):
        value = found(field, at, image)
        return value ^ 1 if (field, at, image) == ("crop_hash", view, other) else value

    def decode(data, orientation):
        decoded.append(data)
        return decode_rgb(data, orientation)

    monkeypatch.setattr(store, "view_value", changed)
    monkeypatch.setattr("caev2.store.pixels.replay.decode_rgb", decode)
    replay = ViewReplay(store, source)
    assert verify_images(store, replay) == ()
    assert replay.drifted == source.keys[other], "its pixels are near, so it is a warning"
    assert len(decoded) == len(store.valid_images)
