import io
import pickle

import numpy as np
import pytest
from PIL import Image

from caev2.errors import ImageUndecodable
from caev2.store.pixels.crops import encode_crop
from caev2.store.pixels.jpeg import JpegReader

SIZE_PX = 32
PIXELS = np.random.default_rng(0).integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)


def jpeg(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def read(data: bytes | memoryview, reader: JpegReader | None = None) -> np.ndarray:
    into = np.empty((SIZE_PX, SIZE_PX, 3), np.uint8)
    (reader or JpegReader(SIZE_PX)).read(data, into)
    return into


def pillows(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    "data",
    [
        encode_crop("jpeg", PIXELS),
        jpeg(Image.fromarray(PIXELS), quality=30, progressive=True, optimize=True),
        jpeg(Image.fromarray(PIXELS), comment=b"\xff\xc0" * 50, subsampling=2),
        encode_crop("jpeg", PIXELS)[:2] + b"\xff" + encode_crop("jpeg", PIXELS)[2:],  # a fill byte, as is allowed
    ],
    ids=["ours", "progressive", "with a comment", "filled"],
)
def test_pixels_are_those_of_pillows_own_way(data):
    assert np.array_equal(read(data), pillows(data))
    assert np.array_equal(read(memoryview(data)), pillows(data))


def test_nothing_of_a_crop_is_left_in_the_next_one():
    reader, other = JpegReader(SIZE_PX), 255 - PIXELS
    for pixels in (PIXELS, other, PIXELS):
        data = encode_crop("jpeg", pixels)
        assert np.array_equal(read(data, reader), pillows(data))
    with pytest.raises(ImageUndecodable):
        read(encode_crop("jpeg", other)[:500], reader)
    assert np.array_equal(read(encode_crop("jpeg", PIXELS), pickle.loads(pickle.dumps(reader))), pillows(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"no picture at all, and long enough to look at",
        encode_crop("jpeg", PIXELS)[:-300],
        jpeg(Image.fromarray(PIXELS).convert("L")),
        jpeg(Image.fromarray(PIXELS).convert("CMYK")),
        jpeg(Image.fromarray(PIXELS).resize((SIZE_PX, SIZE_PX + 1))),
        jpeg(Image.fromarray(PIXELS).resize((3000, SIZE_PX))),
    ],
    ids=["nothing", "start", "text", "cut", "grey", "cmyk", "higher", "wider"],
)
def test_what_is_no_jpeg_of_the_size_in_three_colours_is_refused(data):
    with pytest.raises(ImageUndecodable, match="the kept crop"):
        read(data)
