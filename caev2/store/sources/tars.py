"""Tars of images, as webdataset writes them: members with the same name up to the first dot are one sample.

Headers are read once, when the source is opened; an image is then one `pread` at its offset. A compressed tar has no
offsets to seek: its images are read one after another, which is enough for an extraction.
"""

import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from caev2.errors import SourceError
from caev2.store.sources.folder import IMAGE_SUFFIXES
from caev2.store.sources.handles import Handles
from caev2.store.sources.keys import key_of, refuse_equal_keys
from caev2.store.sources.labels import label_by_text
from caev2.store.sources.source import ImageSource, Split
from caev2.store.sources.tar_members import DAMAGED, Member, list_members, open_tar

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")

_META = re.compile(r"__[^/]*__(/|$)")  # webdataset (tariterators.py) passes these over
_LABEL = "cls"
_MOST_LABEL_BYTES = 1024
_MOST_OPEN = 64


@dataclass(slots=True)
class _Sample:
    """What members of one name up to the first dot are."""

    images: dict[str, Member]
    """By what stands behind that dot, in small letters."""
    label: str | None = None


@dataclass(frozen=True, slots=True)
class _Image:
    key: str
    tar: str
    member: Member
    label: str | None


def open_tars(root: Path, names: Sequence[str], split: Split | None) -> ImageSource:
    """The images of some tars below a folder.

    An image's key is that of the file it would be if each tar were unpacked into a folder of its own name: the tar's
    path without its suffix, a `/`, the member's name. Its label is what the sample's `.cls` says.

    Raises:
        SourceError: A tar is damaged, a sample has two images, or there is no image.
        UnsafeFile: A member is no plain file, or its name leads out of the tar.
    """
    found: list[_Image] = []
    compressed = False
    for name in names:
        file, packed = open_tar(root / name)
        compressed |= packed
        with file:
            samples = _group(root / name, file, list_members(root / name, file))
        found += [_image(root / name, name, *sample) for sample in samples.items() if sample[1].images]
    if not found:
        raise SourceError(
            f"There is no image in the {len(names)} tars below {root}: no member there ends in "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    found.sort(key=lambda image: image.key)
    keys = tuple(image.key for image in found)
    refuse_equal_keys(root, keys)
    labels, classes = label_by_text([image.label for image in found])
    paths = tuple(image.tar for image in found)
    offsets = tuple(image.member.offset for image in found)
    return ImageSource(
        root=root,
        keys=keys,
        paths=paths,
        offsets=offsets,
        labels=labels,
        classes=classes,
        reader=TarReader(root, paths, offsets, tuple(image.member.size for image in found)),
        split=split,
        seekable=not compressed,
    )


def _group(path: Path, file: io.BufferedIOBase, members: Iterable[Member]) -> dict[str, _Sample]:
    """The samples of a tar by their names, with all that may be their image."""
    samples: dict[str, _Sample] = {}
    for member in members:
        folder, slash, name = member.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        if not stem or not suffix or _META.match(member.name):
            continue
        sample, suffix = samples.setdefault(folder + slash + stem, _Sample({})), suffix.lower()
        if suffix == _LABEL:
            sample.label = _read_label(path, file, member)
        elif f".{suffix}".endswith(IMAGE_SUFFIXES):
            if suffix in sample.images:
                raise SourceError(f"{path}: the member {member.name!r} is there twice. Make the tar anew.")
            sample.images[suffix] = member
    return samples


def _read_label(path: Path, file: io.BufferedIOBase, member: Member) -> str | None:
    if member.size > _MOST_LABEL_BYTES:
        raise SourceError(
            f"{path}: {member.name!r} has {member.size:,} bytes; a label has {_MOST_LABEL_BYTES} at most."
        )
    file.seek(member.offset)
    try:
        return file.read(member.size).decode().strip() or None
    except UnicodeDecodeError:
        raise SourceError(f"{path}: {member.name!r} is no text; a label is a number or the name of a class.") from None


def _image(path: Path, tar: str, name: str, sample: _Sample) -> _Image:
    """The image of a sample: the one with a suffix alone, as `.jpg`, before those with a name, as `.mask.png`."""
    plain = [suffix for suffix in sample.images if "." not in suffix] or list(sample.images)
    if len(plain) > 1:
        raise SourceError(
            f"{path}: the sample {name!r} has {len(plain)} images, .{plain[0]} and .{plain[1]}, and only one can be "
            "its image. A sample is named up to the first dot: images of their own need other names before it, and an "
            "image beside others has .jpg, .png, ... alone."
        )
    member = sample.images[plain[0]]
    return _Image(key_of(f"{_without_suffix(tar)}/{member.name}"), tar, member, sample.label)


def _without_suffix(name: str) -> str:
    suffix = next((suffix for suffix in TAR_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


class TarReader:
    """Images at known places of tars.

    Args:
        root: Where the tars lie.
        paths: The tar of each image.
        offsets: Where it begins there.
        sizes: How long it is.
    """

    def __init__(self, root: Path, paths: Sequence[str], offsets: Sequence[int], sizes: Sequence[int]):
        self._root, self._paths, self._offsets, self._sizes = root, paths, offsets, sizes
        self._tars = Handles(self._open, _MOST_OPEN)

    def _open(self, tar: str) -> "_OpenTar":
        return _OpenTar(self._root / tar)

    def read(self, index: int) -> bytes:
        """The bytes of one image.

        Raises:
            SourceError: The tar has vanished, is shorter than it was, or is damaged.
        """
        tar, size = self._paths[index], self._sizes[index]
        data = self._tars.of(tar).read(self._offsets[index], size)
        if len(data) != size:
            raise SourceError(
                f"cannot read {self._root / tar}: it ends within the image at byte {self._offsets[index]}, and was "
                "longer when it was opened. Run the same command again when nobody writes to it."
            )
        return data


class _OpenTar:
    def __init__(self, path: Path):
        self._path = path
        self._file, self._compressed = open_tar(path)

    def read(self, offset: int, size: int) -> bytes:
        try:
            if not self._compressed:
                return os.pread(self._file.fileno(), size, offset)
            self._file.seek(offset)
            return self._file.read(size)
        except DAMAGED as problem:
            raise SourceError(f"cannot read {self._path}: {problem}. Restore it.") from None

    def close(self) -> None:
        self._file.close()
