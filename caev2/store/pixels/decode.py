"""From the bytes of an image file to RGB pixels: the one place that decides orientation, alpha, grey and depth.

* EXIF orientation is applied; with `orientation="ignore"` it is not, as in the published loader.
* Alpha is dropped, not composed: the colours below transparent pixels are used, as `convert("RGB")` of torchvision's
  `ImageFolder` does. Palettes are expanded, CMYK is converted by Pillow, grey is repeated three times.
* 16-bit grey keeps its high byte (Pillow's own conversion would saturate at 255). Float and 32-bit images are refused:
  their range is not known.
* Of an animation the first frame is used.
* What a file is, its first bytes say, whatever it is called. Formats that are no pictures in themselves are not opened:
  Pillow would hand EPS to Ghostscript, which runs the program in it.
* A JPEG is decoded in full, never at the reduced scale that libjpeg offers (`Image.draft`): that halves the image with
  another filter than the resize does, so that crops would be other pixels, with other hashes.
"""

import io
import struct
import warnings
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from caev2.errors import ImageUndecodable

Orientation = Literal["exif", "ignore"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF")
"""What is decoded, in Pillow's names; JPEG includes the MPO files of cameras."""

# what Pillow's plugins, and its reading and rewriting of EXIF, raise for damaged data
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    struct.error,
)


def decode_rgb(data: bytes, orientation: Orientation = "exif") -> Image.Image:
    """Decode an image file to 8-bit RGB.

    Args:
        data: The bytes of the file.
        orientation: Whether the EXIF orientation is applied.

    Raises:
        ImageUndecodable: No known image format, damaged or truncated data, a decompression bomb, or a pixel type
            without a known range. The message is the reason alone.
    """
    if not data:
        raise ImageUndecodable("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; pixels are what counts
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            image.load()
            if orientation == "exif":
                image = ImageOps.exif_transpose(image)
            return _to_rgb(image)
        except UnidentifiedImageError:
            raise ImageUndecodable("no known image format") from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise ImageUndecodable("more pixels than Pillow's limit against decompression bombs") from None
        except _DAMAGED as problem:
            raise ImageUndecodable(f"damaged: {problem}") from None


def is_turned(data: bytes) -> bool:
    """Whether the EXIF orientation of an image file says that its pixels lie in another way than they are stored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Image.open(io.BytesIO(data), formats=FORMATS).getexif().get(0x0112, 1) not in (0, 1)
        except _DAMAGED:
            return False


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        high_byte = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return Image.fromarray(high_byte).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageUndecodable(f"pixel type {image.mode!r} has no known range; convert it to 8 or 16 bits")
    return image.convert("RGB")
