"""Tars of images, as webdataset writes them: members with the same name up to the first dot are one sample.

Headers are read once, when the source is opened; an image is then one `pread` at its offset. A compressed tar has no
offsets to seek: its images are read one after another, which is enough for an extraction. Tars at URLs are fetched as a
whole, into the cache; what they hold is kept there, so that each is fetched for its headers once.
"""

import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from caev2.errors import SourceError
from caev2.store.sources.at_url import ReadAhead, SourcePath, in_threads
from caev2.store.sources.folder import IMAGE_SUFFIXES
from caev2.store.sources.handles import Handles
from caev2.store.sources.keys import key_of, refuse_equal_keys
from caev2.store.sources.labels import label_by_text
from caev2.store.sources.listings import listed
from caev2.store.sources.source import ImageSource, Split, cannot_read
from caev2.store.sources.tar_members import DAMAGED, Member, list_members, open_tar
from caev2.store.sources.unchanged import Stamp, refuse_change, stamp_of

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")

_META = re.compile(r"__[^/]*__(/|$)")  # webdataset (tariterators.py) passes these over
_LABEL = "cls"
_MOST_LABEL_BYTES = 1024
_MOST_OPEN = 64
_LISTING = 4  # tars at URLs that are fetched at once to be listed


@dataclass(slots=True)
class _Sample:
    """What members of one name up to the first dot are."""

    images: dict[str, Member]
    """By what stands behind that dot, in small letters."""
    label: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class _Image:
    key: str
    tar: str
    offset: int
    size: int
    label: str | None


def open_tars(root: SourcePath, names: Sequence[str], split: Split | None) -> ImageSource:
    """The images of some tars below a folder.

    An image's key is that of the file it would be if each tar were unpacked into a folder of its own name: the tar's
    path without its suffix, a `/`, the member's name. Its label is what the sample's `.cls` says.

    Raises:
        SourceError: A tar is damaged, a sample has two images, or there is no image.
        UnsafeFile: A member is no plain file, or its name leads out of the tar.
    """
    stamps = {name: stamp_of(root / name) for name in names}
    contents = _list_all(root, names)
    found = sorted(
        _Image(key_of(f"{_without_suffix(tar)}/{member}"), tar, offset, size, label)
        for tar, content in contents.items()
        for member, offset, size, label in content["images"]
    )
    if not found:
        raise SourceError(
            f"There is no image in the {len(names)} tars below {root}: no member there ends in "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    keys = tuple(image.key for image in found)
    refuse_equal_keys(root, keys)
    labels, classes = label_by_text([image.label for image in found])
    paths, offsets = tuple(image.tar for image in found), tuple(image.offset for image in found)
    return ImageSource(
        root=root,
        keys=keys,
        paths=paths,
        offsets=offsets,
        labels=labels,
        classes=classes,
        reader=TarReader(root, paths, offsets, tuple(image.size for image in found), stamps),
        split=split,
        seekable=not any(content["compressed"] for content in contents.values()),
    )


def _list_all(root: SourcePath, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each tar holds."""
    if isinstance(root, Path):
        return {name: _list(root, name) for name in names}
    return dict(zip(names, in_threads(partial(_list, root), names, at_once=_LISTING), strict=True))


def _list(root: SourcePath, name: str) -> dict[str, Any]:
    """What a tar holds, in words of JSON: of each image the member's name, offset, size and label."""

    def find() -> dict[str, Any]:
        file, compressed = open_tar(root / name)
        with file:
            samples = _group(root / name, file, list_members(root / name, file))
        chosen = [
            (_choose_image(root / name, stem, sample), sample.label)
            for stem, sample in samples.items()
            if sample.images
        ]
        images = [(member.name, member.offset, member.size, label) for member, label in chosen]
        return {"compressed": compressed, "images": images}

    return listed(root / name, "tar", find)


def _group(path: SourcePath, file: io.BufferedIOBase, members: Iterable[Member]) -> dict[str, _Sample]:
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


def _read_label(path: SourcePath, file: io.BufferedIOBase, member: Member) -> str | None:
    if member.size > _MOST_LABEL_BYTES:
        raise SourceError(
            f"{path}: {member.name!r} has {member.size:,} bytes; a label has {_MOST_LABEL_BYTES} at most."
        )
    file.seek(member.offset)
    try:
        return file.read(member.size).decode().strip() or None
    except UnicodeDecodeError:
        raise SourceError(f"{path}: {member.name!r} is no text; a label is a number or the name of a class.") from None


def _choose_image(path: SourcePath, name: str, sample: _Sample) -> Member:
    """The image of a sample: the one with a suffix alone, as `.jpg`, before those with a name, as `.mask.png`."""
    plain = [suffix for suffix in sample.images if "." not in suffix] or list(sample.images)
    if len(plain) > 1:
        raise SourceError(
            f"{path}: the sample {name!r} has {len(plain)} images, .{plain[0]} and .{plain[1]}, and only one can be "
            "its image. A sample is named up to the first dot: images of their own need other names before it, and an "
            "image beside others has .jpg, .png, ... alone."
        )
    return sample.images[plain[0]]


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
        stamps: Of each tar, what it was when it was listed.
    """

    def __init__(
        self,
        root: SourcePath,
        paths: Sequence[str],
        offsets: Sequence[int],
        sizes: Sequence[int],
        stamps: Mapping[str, Stamp | None],
    ):
        self._root, self._paths, self._offsets, self._sizes, self._stamps = root, paths, offsets, sizes, stamps
        self._tars = Handles(self._open, _MOST_OPEN)
        self._ahead = ReadAhead(root, paths)

    def _open(self, tar: str) -> "_OpenTar":
        opened = _OpenTar(self._root / tar, self._stamps[tar])
        self._ahead.opened(tar)
        return opened

    def read(self, index: int) -> bytes:
        """The bytes of one image.

        Raises:
            SourceError: The tar has vanished, has changed since it was listed, or is damaged.
        """
        tar, size = self._paths[index], self._sizes[index]
        data = self._tars.of(tar).read(self._offsets[index], size)
        if len(data) != size:
            raise cannot_read(self._root / tar, f"it ends within the image at byte {self._offsets[index]}")
        return data


class _OpenTar:
    def __init__(self, path: SourcePath, stamp: Stamp | None):
        self._path, self._stamp = path, stamp
        self._file, self._compressed = open_tar(path)

    def read(self, offset: int, size: int) -> bytes:
        try:
            refuse_change(self._path, self._stamp, os.fstat(self._file.fileno()))
            if not self._compressed:
                return os.pread(self._file.fileno(), size, offset)
            self._file.seek(offset)
            return self._file.read(size)
        except DAMAGED as problem:
            raise cannot_read(self._path, problem if isinstance(problem, OSError) else str(problem)) from None

    def close(self) -> None:
        self._file.close()
