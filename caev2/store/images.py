"""Where images come from: telling the kinds of sources apart.

What may be given for images is described in docs/images.md. A path that exists is taken as it is; only one that does
not may be a pattern, or end in `#column`. What is written like a URL is one.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from caev2.errors import SourceError, UnsafeFile
from caev2.store.remote.cache import CacheSettings
from caev2.store.remote.paths import DEFAULT_CACHE
from caev2.store.sources.at_url import ImagesUrl, SourcePath, look_up_files, look_up_folder
from caev2.store.sources.folder import IMAGE_SUFFIXES, files_below, open_folder
from caev2.store.sources.labels import NO_LABEL
from caev2.store.sources.path_list import LIST_SUFFIXES, open_list
from caev2.store.sources.pattern import expand, expand_braces, is_pattern, is_there
from caev2.store.sources.source import ImageSource, Split
from caev2.store.sources.splits import choose_split
from caev2.store.sources.table_files import TABLE_SUFFIXES
from caev2.store.sources.tables import open_tables
from caev2.store.sources.tars import TAR_SUFFIXES, open_tars

__all__ = ["IMAGE_SUFFIXES", "NO_LABEL", "ImageSource", "ImagesUrl", "Place", "open_images"]

Place = Path | str | ImagesUrl
"""Where images may be said to lie."""

_KINDS = {"tars": TAR_SUFFIXES, "tables": TABLE_SUFFIXES, "list": LIST_SUFFIXES}
_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_HUB_SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?\.parquet$")  # how datasets and the hub name parquet files


def open_images(place: Place, split: Split = "train") -> ImageSource:
    """List the images at a place, whatever kind of source lies there.

    Args:
        place: A folder of images, of tars or of a Hugging Face dataset; one or several tars or tables, as a pattern; a
            text file of paths. A table's path may end in `#column`, the one with the images. All but lists may lie at
            URLs.
        split: Which part of a data set that has parts.

    Raises:
        SourceError: There is nothing, no image in it, or it is damaged or ambiguous.
        SourceUnreachable: A server does not answer, or refuses.
        UnsafeFile: Something asks to run a command, or to leave its folder.
    """
    text = str(place)
    if text.startswith("pipe:"):
        raise UnsafeFile(f"{text!r} asks to run a command, which is not done. Give a file, a folder or a pattern.")
    if isinstance(place, ImagesUrl) or (isinstance(place, str) and _URL.match(place)):
        return _open_url(text, place.cache if isinstance(place, ImagesUrl) else DEFAULT_CACHE, split)
    column = None
    if not is_there(text) and "#" in text:
        text, _, column = text.rpartition("#")
    root = Path(text)
    if not is_there(text) and is_pattern(text):
        return _open_files(*expand(text), column, split)
    if not is_there(text):
        raise SourceError(
            f"There are no images at {root}: the path does not exist. Give a folder of images, of tars or of a data "
            "set, a pattern of tars or tables, or a text file of paths; and a URL as text."
        )
    if root.is_dir():
        return _open_folder(root, column, split)
    return _open_files(root.parent, [root.name], column, split)


def _open_url(text: str, cache: CacheSettings, split: Split) -> ImageSource:
    """The source of a URL: braces stand for files, and what does not end like a tar or a table is a folder."""
    text, _, column = text.partition("#")
    if "?" in text or "*" in text:
        raise SourceError(
            f"{text}: what ? and * stand for is not looked up at URLs. Give a folder, or braces, as in {{000..012}}."
        )
    scheme, _, place = text.rstrip("/").partition("://")
    folder = place.partition("{")[0].rpartition("/")[0]
    names = sorted(set(expand_braces(place[len(folder) :].lstrip("/"), text))) if folder else []
    if names and all(_kind_of(name) for name in names):
        return _open_files(look_up_files(f"{scheme}://{folder}", names, cache), names, column or None, split)
    if "{" in place or not place:
        raise SourceError(
            f"{text} stands for no tars or tables in one place. Write s3://bucket/shards/{{000..012}}.tar."
        )
    return _open_folder(look_up_folder(f"{scheme}://{place}", cache), column or None, split)


def _open_files(
    root: SourcePath, names: Sequence[str], column: str | None, split: Split, part: Split | None = None
) -> ImageSource:
    """The source of some files that hold or name images, all of one kind."""
    kinds = {name: _kind_of(name) for name in names}
    unknown = [name for name, kind in kinds.items() if kind is None]
    if unknown:
        raise SourceError(
            f"{root / unknown[0]} is a file. Give the folder that the images lie in; or tars, parquet or arrow files "
            f"({', '.join((*TAR_SUFFIXES[:1], *TABLE_SUFFIXES))}); or a list of paths ({', '.join(LIST_SUFFIXES)})."
        )
    if len(set(kinds.values())) > 1:
        one, other = sorted(set(map(str, kinds.values())))[:2]
        raise SourceError(f"{root} has both {one} and {other}. Give a pattern that stands for one kind.")
    if part is None:
        names, part = choose_split(names, split)
    kind = kinds[names[0]]
    if column is not None and kind != "tables":
        raise SourceError(f"{root / names[0]} has no columns. Leave out #{column}.")
    if kind == "list" and len(names) > 1:
        raise SourceError(f"{root}: {len(names)} lists of paths were given, {names[0]} and {names[1]}. Join them.")
    if kind == "list":
        file = root / names[0]
        if not isinstance(file, Path):
            raise SourceError(f"{file} is a list of paths at a URL, which is not read. Copy it to a disk.")
        return open_list(file, part)
    return open_tars(root, names, part) if kind == "tars" else open_tables(root, names, column, part)


def _kind_of(name: str) -> str | None:
    return next((kind for kind, suffixes in _KINDS.items() if name.lower().endswith(suffixes)), None)


def _open_folder(root: SourcePath, column: str | None, split: Split) -> ImageSource:
    part = None
    if (root / "dataset_dict.json").is_file():
        chosen, part = choose_split(_read_names(root / "dataset_dict.json", "splits"), split)
        if len(chosen) > 1:
            raise SourceError(f"{root} has the splits {', '.join(chosen)}. Give the folder of one of them.")
        root = root / _check_inside(root, chosen[0])
    elif (root / "train").is_dir() and (root / "val").is_dir():
        root, part = root / split, split
    if (root / "state.json").is_file() and (root / "dataset_info.json").is_file():
        return _open_saved(root, column, split, part)
    names, strange = files_below(root)
    images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    containers = [name for name in names if _kind_of(name) in ("tars", "tables")]
    if any(
        _HUB_SHARD.search(name) for name in containers
    ):  # a picture for its page does not make it a folder of images
        return _open_files(root, [name for name in containers if name.endswith(".parquet")], column, split, part)
    if images:
        return open_folder(root, images, part, strange)
    if containers:
        return _open_files(root, containers, column, split, part)
    raise SourceError(
        f"There is no image in {root}: no file there ends in {', '.join(IMAGE_SUFFIXES)}, and none is a tar or a "
        "table. Give the folder that the images lie in."
    )


def _open_saved(root: SourcePath, column: str | None, split: Split, part: Split | None) -> ImageSource:
    """What `datasets` wrote with `save_to_disk`: its state names the arrow files."""
    if _read_names(root / "state.json", "_indices_data_files"):
        raise SourceError(f"{root} keeps a choice of rows in a file of its own. Save it again with save_to_disk.")
    names = [_check_inside(root, name) for name in _read_names(root / "state.json", "_data_files")]
    if not names:
        raise SourceError(f"There is no image in {root}: its state.json names no file.")
    return open_tables(root, names, column, part)


def _read_names(file: SourcePath, key: str) -> list[str]:
    """The names in one of the lists of a JSON file of `datasets`."""
    try:
        listed: Any = json.loads(file.read_bytes()).get(key) or []
        return [name if isinstance(name, str) else name["filename"] for name in listed]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise SourceError(f"{file} cannot be read: {problem!r}. Save the data set again with save_to_disk.") from None


def _check_inside(root: SourcePath, name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UnsafeFile(f"{root} names {name!r}, which leads out of it. Save the data set again with save_to_disk.")
    return name
