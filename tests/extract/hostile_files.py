"""A thousand good images and a thousand files that are hard on whoever reads them, the same ones every time."""

import io
import os
import socket
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

FORMATS = ("jpeg", "png", "webp", "gif", "tiff", "bmp")
SUFFIXES = ("jpg", "JPEG", "png", "webp", "Tif", "bmp", "ppm")
KNOWN_BAD = {
    "empty": "the file is empty",
    "text": "no known image format",
    "damaged": "damaged|no known image format",
    "bomb": "decompression bombs",
    "range": "no known range",
    "pipe": "no file but a pipe",
    "socket": "no file but a socket",
    "link": "no file but a link",
}
"""What is said of each kind of file that is no image for certain."""

Random = np.random.Generator


@dataclass
class HostileFolder:
    """Where the images lie, and what must become of them."""

    root: Path
    good: set[str] = field(default_factory=set)
    """Keys of images that must be extracted."""
    bad: dict[str, str] = field(default_factory=dict)
    """Keys of what cannot be, and the kind of it."""
    doubtful: set[str] = field(default_factory=set)
    """Keys of files that were cut or changed: what is still an image, Pillow decides."""

    def put(self, name: str, data: bytes) -> str:
        """Write a file; its key."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(data)
        return unicodedata.normalize("NFC", name)


def write_hostile_folder(root: Path, seed: int = 0, count: int = 1000) -> HostileFolder:
    """`count` good images, and as many hostile files between them."""
    folder, random = HostileFolder(root), np.random.default_rng(seed)
    for number in range(count):
        name, data = _make_good(random, number)
        folder.good.add(folder.put(name, data))
    for number, (kind, data) in enumerate(_bad_contents()):
        folder.bad[folder.put(f"bad/{number} {kind}.{('jpg', 'PNG', 'webp')[number % 3]}", data)] = kind
    _put_no_files(folder)
    for number in range(count - len(folder.bad)):
        data = _spoil(random, _make_good(random, number)[1])
        folder.doubtful.add(folder.put(f"spoilt/{number:04d}.{SUFFIXES[number % len(SUFFIXES)]}", data))
    return folder


def _photograph(random: Random) -> Image.Image:
    coarse = random.integers(0, 255, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC)


def _save(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    (_quantise(image) if kind == "gif" else image).save(buffer, kind, **options)
    return buffer.getvalue()


def _quantise(image: Image.Image) -> Image.Image:
    return image.quantize(16, Image.Quantize.FASTOCTREE)


def _turned(image: Image.Image, number: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number // 10 % 8 + 1
    return _save(image, "jpeg", exif=exif)


def _odd_exif(image: Image.Image, number: int) -> bytes:
    """EXIF that is cut or points nowhere, with no orientation to be read."""
    directories = (b"", b"II*\0", b"II*\0" + struct.pack("<IH", 8, 60000), b"MM\0*\xff\xff\xff\xff", bytes(40))
    return _save(image, "jpeg", exif=b"Exif\0\0" + directories[number // 10 % len(directories)])


def _animated(image: Image.Image, number: int) -> bytes:
    kind = ("gif", "webp", "png", "tiff")[number // 10 % 4]
    return _save(image, kind, save_all=True, append_images=[image.rotate(90)])


def _palette(image: Image.Image, number: int) -> bytes:
    transparency = (0, bytes(range(16)))[number // 10 % 2]
    return _save(_quantise(image), "png", transparency=transparency)


def _deep(image: Image.Image, number: int) -> bytes:
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    return _save(Image.fromarray(grey), ("png", "tiff")[number // 10 % 2])


_MADE: tuple[Callable[[Image.Image, int], bytes], ...] = (
    lambda image, number: _save(image, FORMATS[number // 10 % len(FORMATS)]),
    lambda image, number: _save(image, "jpeg", progressive=bool(number // 10 % 2)),
    _turned,
    _odd_exif,
    _animated,
    lambda image, number: _save(image.convert("CMYK"), ("jpeg", "tiff")[number // 10 % 2]),
    _deep,
    _palette,
    lambda image, number: _save(image.convert(("RGBA", "LA", "L", "1")[number // 10 % 4]), "png"),
    lambda image, number: _save(image.crop((0, 0, 1 + number // 10 % 48, 1)), "png"),
)

_NAMES = (
    "plain",
    "with  spaces ",
    "new\nline\r",
    "-rf --help",
    "NFC é",
    unicodedata.normalize("NFD", "NFD é"),
    "‮漢字 🐈",
    '\'; rm "$HOME" `x` *?[a]{b,c}',
    "%41#,;\\",
    "l" * 190,
)


def _make_good(random: Random, number: int) -> tuple[str, bytes]:
    """Any image in any file format, with any suffix and any name."""
    data = _MADE[number % len(_MADE)](_photograph(random), number)
    suffix = SUFFIXES[number % len(SUFFIXES)]
    folder = ("plain folder", "a folder.jpg", "deep/er/and\ndeeper.png")[number % 3]
    return f"{folder}/{_NAMES[number // len(_MADE) % len(_NAMES)]} {number:04d}.{suffix}", data


def _spoil(random: Random, data: bytes) -> bytes:
    """A file that was cut anywhere, has other bytes in some places, or both."""
    spoilt, way = bytearray(data), random.integers(3)
    if way != 0:
        for _ in range(random.integers(1, 12)):
            spoilt[random.integers(len(spoilt))] = random.integers(256)
    return bytes(spoilt if way == 1 else spoilt[: random.integers(len(spoilt))])


def _bad_contents() -> Iterator[tuple[str, bytes]]:
    """Files that are no images for certain, with the kind of each."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("picture.jpg", b"not a picture")
    whole = _save(_photograph(np.random.default_rng(0)), "jpeg")
    for _ in range(20):
        yield "empty", b""
    yield "text", b"<!DOCTYPE html><html><title>404 Not Found</title></html>"
    yield (
        "text",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/passwd"/></svg>',
    )
    yield "text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    yield "text", archive.getvalue()
    yield "text", bytes(5000)
    yield "text", b"\xff\xd8\xff"
    yield "damaged", whole[: len(whole) // 2]
    for side in (60000, 2**31 - 1):
        yield "bomb", _png(side, side, b"")
    yield "bomb", b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    yield "bomb", whole.replace(struct.pack(">HH", 40, 48), struct.pack(">HH", 60000, 60000), 1)
    yield "bomb", _png(9500, 9500, zlib.compress(bytes(9500 * 9501), 1))
    yield "range", _save(Image.fromarray(np.ones((9, 9), np.float32)), "tiff")
    yield "range", _save(Image.fromarray(np.ones((9, 9), np.int32)), "tiff")


def _png(width: int, height: int, data: bytes) -> bytes:
    """A grey PNG that says to be so large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _put_no_files(folder: HostileFolder) -> None:
    """Pipes, sockets, links that lead nowhere or round in circles; and folders that are called like images."""
    place = folder.root / "no files"
    for name in ("empty folder.jpg", "x.png/y.jpg"):
        (place / name).mkdir(parents=True)
    for name, target in (("up.jpg", ".."), ("here.png", "."), ("x.png/y.jpg/top", folder.root)):
        (place / name).symlink_to(target)
    os.mkfifo(place / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(place)  # the path of a socket may have a hundred bytes
        server.bind("socket.jpg")
        os.chdir(here)
    for name, target in (
        ("nowhere.jpg", "missing.jpg"),
        ("self.jpg", "self.jpg"),
        ("a.jpg", "b.jpg"),
        ("b.jpg", "a.jpg"),
    ):
        (place / name).symlink_to(target)
        folder.bad[f"no files/{name}"] = "link"
    (place / "to a pipe.jpg").symlink_to("pipe.jpg")
    folder.bad |= {"no files/pipe.jpg": "pipe", "no files/to a pipe.jpg": "pipe", "no files/socket.jpg": "socket"}
