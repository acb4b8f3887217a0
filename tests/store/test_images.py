"""Which files a folder of images holds, their keys and their classes; and what Pillow makes of odd files."""

import io
import os
import struct
from pathlib import Path

import pytest
from PIL import Image

from caev2.errors import ImageUndecodable, SourceError
from caev2.store.images import open_images
from caev2.store.pixels.decode import FORMATS, decode_rgb


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, "train/a.png", "bus/b.png")
    found = open_images(tmp_path)
    assert found.classes == ("bus", "train")
    assert found.keys == ("bus/b.png", "train/a.png")
    assert found.labels == (0, 1)


def test_train_and_val_together_are_two_splits(tmp_path):
    touch(tmp_path, "train/bus/a.png", "val/bus/b.png")
    assert open_images(tmp_path).keys == ("bus/a.png",)
    assert open_images(tmp_path, "val").keys == ("bus/b.png",)


def test_a_folder_linked_twice_counts_twice_and_a_circle_ends(tmp_path):
    touch(tmp_path, "images/one/a.png", "elsewhere/b.png")
    for name in ("two", "three"):
        (tmp_path / "images" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images" / "one" / "up").symlink_to(tmp_path / "images")
    (tmp_path / "elsewhere" / "self").symlink_to(tmp_path / "elsewhere")
    assert open_images(tmp_path / "images").keys == ("one/a.png", "three/b.png", "two/b.png")


def test_a_folder_that_cannot_be_read_is_refused_and_not_left_out(tmp_path, monkeypatch):
    touch(tmp_path, "open/a.png", "closed/b.png")
    scandir = os.scandir

    def refusing(folder):  # permissions do not bind a superuser
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(SourceError, match=r"closed cannot be read: Permission denied.*would be left out"):
        open_images(tmp_path)


def jpeg_with_exif(path: Path, exif: bytes) -> bytes:
    Image.new("RGB", (30, 20), (1, 2, 3)).save(path, exif=exif)
    return path.read_bytes()


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\x00\x00",
        b"Exif\x00\x00II*\x00",
        b"Exif\x00\x00II*\x00" + struct.pack("<IH", 8, 60000),
        # orientation 6 in a list whose second entry points far outside
        b"Exif\x00\x00II*\x00" + struct.pack("<IHHHIIHHIII", 8, 2, 0x0112, 3, 1, 6, 0x010E, 2, 900, 10**6, 0),
        b"Exif\x00\x00MM\x00*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 99, 0, 0),
        b"Exif\x00\x00II*\x00" + struct.pack("<IHHHII", 8, 1, 0x0112, 12, 1, 8),
    ],
    ids=["empty", "no list", "cut", "outside", "no such orientation", "wrong type"],
)
def test_odd_exif_is_pixels_or_a_reason_but_never_a_crash(tmp_path, exif):
    data = jpeg_with_exif(tmp_path / "odd.jpg", exif)
    try:
        said = str(decode_rgb(data).size)
    except ImageUndecodable as problem:
        said = str(problem)
    assert said in ("(30, 20)", "(20, 30)") or said.startswith("damaged")
    assert decode_rgb(data, "ignore").size == (30, 20)


def test_what_pillow_raises_for_damaged_exif_becomes_a_reason(tmp_path, monkeypatch):
    data = jpeg_with_exif(tmp_path / "odd.jpg", b"Exif\x00\x00")
    for kind in (struct.error("unpack requires 4 bytes"), TypeError("no"), ZeroDivisionError("0"), KeyError("x")):

        def fail(image, kind=kind):
            raise kind

        monkeypatch.setattr("PIL.ImageOps.exif_transpose", fail)
        with pytest.raises(ImageUndecodable, match="damaged"):
            decode_rgb(data)


def test_no_program_is_run_for_a_picture(tmp_path, monkeypatch):
    """Pillow hands an EPS file to Ghostscript."""
    canary, program = tmp_path / "ran", tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {canary}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "eps")
    with pytest.raises(ImageUndecodable, match="no known image format"):
        decode_rgb(picture.getvalue())
    assert not canary.exists()


@pytest.mark.parametrize("kind", [*FORMATS, "MPO"])
def test_what_a_file_is_its_content_says_and_not_its_name(kind):
    picture = io.BytesIO()
    Image.new("RGB", (8, 9), (200, 0, 0)).save(picture, kind)
    assert decode_rgb(picture.getvalue()).size == (8, 9)
