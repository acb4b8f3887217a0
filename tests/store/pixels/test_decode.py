"""Each sentence of docs/images.md about pixels: orientation, alpha, grey, depth, palettes, CMYK, animations."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from caev2.errors import ImageUndecodable
from caev2.store.pixels.decode import decode_rgb

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)

# how a picture has to be stored so that turning it by its tag (TIFF 6.0, page 36) gives the picture itself: where the
# tag says that the first row is the picture's right side, rows are stored from right to left, and so on
STORED = {
    1: lambda picture: picture,
    2: lambda picture: picture[:, ::-1],
    3: lambda picture: picture[::-1, ::-1],
    4: lambda picture: picture[::-1],
    5: lambda picture: picture.transpose(1, 0, 2),
    6: lambda picture: picture.transpose(1, 0, 2)[::-1],
    7: lambda picture: picture[::-1, ::-1].transpose(1, 0, 2),
    8: lambda picture: picture.transpose(1, 0, 2)[:, ::-1],
}


def encode(image: Image.Image, kind: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes, orientation="exif") -> np.ndarray:
    image = decode_rgb(data, orientation)
    assert image.mode == "RGB"
    return np.asarray(image)


def png(depth: int, colour: int, rows: list[bytes], width: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of a kind that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", body), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("tag", range(1, 9))
def test_orientation_is_applied_or_ignored(tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    stored = np.ascontiguousarray(STORED[tag](COLOURS))
    data = encode(Image.fromarray(stored), exif=exif)
    assert np.array_equal(pixels(data), COLOURS)
    assert np.array_equal(pixels(data, "ignore"), stored)


def test_alpha_is_dropped_and_not_composed():
    alpha = np.random.default_rng(1).integers(0, 256, (6, 9, 1), dtype=np.uint8)
    assert np.array_equal(pixels(encode(Image.fromarray(np.concatenate([COLOURS, alpha], 2)))), COLOURS)
    grey = Image.fromarray(np.concatenate([COLOURS[..., :1], alpha], 2))
    assert grey.mode == "LA"
    assert np.array_equal(pixels(encode(grey)), np.repeat(COLOURS[..., :1], 3, 2))


def test_grey_and_black_and_white_are_repeated_three_times():
    grey = COLOURS[..., 0]
    assert np.array_equal(pixels(encode(Image.fromarray(grey))), np.repeat(grey[..., None], 3, 2))
    bits = Image.fromarray(grey).convert("1")
    assert set(np.unique(pixels(encode(bits)))) == {0, 255}


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 160, 10))])
def test_palettes_are_expanded_and_their_transparency_is_dropped(transparency):
    image = Image.fromarray(COLOURS).quantize(16)
    wanted = np.asarray(image.convert("RGB"))
    options = {} if transparency is None else {"transparency": transparency}
    assert np.array_equal(pixels(encode(image, **options)), wanted)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_of_sixteen_bits_of_grey_the_high_byte_is_kept(kind):
    deep = np.arange(54, dtype=np.uint16).reshape(6, 9) * 1200
    data = encode(Image.fromarray(deep), kind)
    assert np.array_equal(pixels(data), np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, 2))


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_of_sixteen_bits_of_colour_or_with_alpha_the_high_byte_is_kept(colour, channels):
    deep = np.random.default_rng(2).integers(0, 65536, (6, 9, channels), dtype=np.uint16)
    found = pixels(png(16, colour, [row.astype(">u2").tobytes() for row in deep], 9))
    high = (deep >> 8).astype(np.uint8)
    assert np.array_equal(found, high[..., :3] if channels > 2 else np.repeat(high[..., :1], 3, 2))


@pytest.mark.parametrize("kind", ["jpeg", "tiff"])
def test_cmyk_is_converted_without_a_profile(kind):
    flat = Image.new("CMYK", (16, 16), (10, 200, 60, 40))
    wanted = [(255 - ink) * (255 - 40) / 255 for ink in (10, 200, 60)]
    assert np.abs(pixels(encode(flat, kind)) - np.array(wanted)).max() <= 3  # a JPEG is not exact


def test_colour_profiles_are_not_applied():
    profile = b"\0" * 36 + b"acsp" + b"\0" * 88
    assert np.array_equal(pixels(encode(Image.fromarray(COLOURS), icc_profile=profile)), COLOURS)


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff"])
def test_of_an_animation_the_first_frame_is_used(kind):
    frames = [Image.new("RGB", (9, 6), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "webp" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(pixels(data), np.asarray(frames[0]))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_without_a_known_range_are_a_reason(kind):
    with pytest.raises(ImageUndecodable, match="has no known range"):
        decode_rgb(encode(Image.fromarray(np.ones((6, 9), kind)), "tiff"))


@pytest.mark.parametrize("length", [0, 1, 20, 100, -60])
def test_empty_and_cut_files_are_a_reason(length):
    data = encode(Image.fromarray(np.repeat(COLOURS, 20, 0)))
    with pytest.raises(ImageUndecodable, match=r"empty|no known image format|damaged"):
        decode_rgb(data[:length])


def test_a_bomb_is_a_reason():
    with pytest.raises(ImageUndecodable, match="decompression bombs"):
        decode_rgb(png(1, 0, [b""] * 70_000, 70_000))
