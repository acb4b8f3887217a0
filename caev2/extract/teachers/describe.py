"""What can be said of a teacher by its name alone, and how its weights get into the cache."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.constants import HF_HUB_CACHE

from caev2.errors import ConfigError
from caev2.extract.teachers.catalog import Scheme, parse_name, scheme_of
from caev2.extract.teachers.hashes import hash_file
from caev2.extract.teachers.hub import Publication, fetch, find_cached
from caev2.extract.teachers.known import TEACHERS
from caev2.extract.teachers.names import TeacherName, split_name
from caev2.extract.teachers.shipped import weights_path
from caev2.extract.teachers.teacher import ClassRow, Outline

CLASS_ROWS: dict[ClassRow, str] = {
    "token": "the class token",
    "mean": "the mean of the patches, as the tower pools them",
    "map": "the query of the tower's attention pooling",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherCard:
    """A teacher as far as it is known without its weights."""

    name: str
    crop_px: int
    patch_px: int
    grid: str
    """Patches, rows by columns."""
    tokens: int
    """The class row and one row per patch."""
    class_row: str
    """What the first row is at `post_norm` and `projected`."""
    widths: dict[str, int]
    """Every tap, and the width of its latents."""
    mean: tuple[float, float, float] | None
    """Subtracted from pixels of 0 .. 1; none: that depends on the tag."""
    std: tuple[float, float, float] | None
    weights: str
    """Where they come from."""
    identity: str
    """The sha256 of the image tower that stores record, where it is known before loading."""
    licence: str
    """As the library knows it."""
    cached: str | None
    """Their file on this machine."""
    tags: tuple[str, ...]
    """Published weights of the architecture, where the name has none."""


def describe_teacher(text: str, *, cache: Path | None = None) -> TeacherCard:
    """Describe a teacher by its name; nothing is downloaded, and no memory is taken for weights.

    Args:
        text: The name, with or without weights.
        cache: Another cache folder than the client's own.

    Raises:
        ConfigError: The scheme, architecture or tag does not exist.
        TeacherError: The architecture has no tokens that a store could hold.
    """
    name = split_name(text)
    scheme = scheme_of(name)
    (scheme.check_name if _names_weights(name) else scheme.check_architecture)(name)
    tags = () if _names_weights(name) else tuple(scheme.tags_of(name))
    outline = scheme.outline(_with_tag(name, tags[0]) if tags else name)
    same_pixels = len(tags) < 2 or len(set(scheme.pixels_of_tags(name))) == 1
    return _card(name, outline, same_pixels, tags, _publication(scheme, name), cache)


def _card(
    name: TeacherName,
    outline: Outline,
    same_pixels: bool,
    tags: tuple[str, ...],
    published: Publication | None,
    cache: Path | None,
) -> TeacherCard:
    known = next((each for each in TEACHERS if each.name == name.text), None)
    return TeacherCard(
        name=name.text,
        crop_px=outline.image_px,
        patch_px=outline.patch_px,
        grid=f"{outline.grid}x{outline.grid}",
        tokens=outline.tokens,
        class_row=CLASS_ROWS[outline.class_row],
        widths=dict(outline.widths),
        mean=outline.mean if same_pixels else None,
        std=outline.std if same_pixels else None,
        weights=_where(name, published),
        identity=(known and known.sha256) or "known once the weights are loaded",
        licence=(published and published.licence) or (known and known.licence) or "not known to the library",
        cached=_cached(name, published, cache),
        tags=tags,
    )


def _names_weights(name: TeacherName) -> bool:
    """Whether a name says which weights; the demo's needs nothing more."""
    if name.architecture is None or name.tag or name.path:
        return True
    return name.scheme == "timm" and "." in name.architecture


def _with_tag(name: TeacherName, tag: str) -> TeacherName:
    if name.scheme == "timm":
        return dataclasses.replace(name, architecture=f"{name.architecture}.{tag}")
    return dataclasses.replace(name, tag=tag)


def _publication(scheme: Scheme, name: TeacherName) -> Publication | None:
    return scheme.published(name) if scheme.published and name.path is None and _names_weights(name) else None


def _where(name: TeacherName, published: Publication | None) -> str:
    if published:
        return published.where
    if name.path:
        return f"the file {name.path}"
    return "come with caev2" if name.architecture is None else "the name has none: add a tag or @PATH"


def _cached(name: TeacherName, published: Publication | None, cache: Path | None) -> str | None:
    if name.scheme == "demo":
        return str(weights_path(name))
    if published is None:
        return str(name.path) if name.path and name.path.exists() else None
    found = find_cached(published, cache=cache)
    return str(found.path) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedTeacher:
    """A teacher whose weights lie in the cache and are what they should be."""

    name: str
    file: str
    bytes: int
    downloaded: bool
    """Whether this call brought it; it was there otherwise."""
    file_sha256: str
    compared_with: str
    """What says that these are the published bytes."""
    identity: str
    """The sha256 of the image tower that stores record."""
    without_network: str
    """How to take it to a machine that has none."""


def fetch_teacher(text: str, *, cache: Path | None = None) -> FetchedTeacher:
    """Put a teacher's weights into the cache, compare them with their published digest, and load them once.

    Args:
        text: The name, with its tag.
        cache: Another cache folder than the client's own.

    Raises:
        ConfigError: The name has no published weights.
        TeacherError: The weights cannot be had, or are not what was published.
    """
    name = parse_name(text)
    publication = _publication(scheme_of(name), name)
    if publication is None:
        raise ConfigError(f"The weights of {text} {_not_published(name)}: there is nothing to fetch.")
    found = fetch(publication, cache=cache)
    loaded = scheme_of(name).load(
        dataclasses.replace(name, path=found.path), device="cpu", precision="fp32", image_px=None, cache=cache
    )
    return FetchedTeacher(
        name=text,
        file=str(found.path),
        bytes=found.path.stat().st_size,
        downloaded=found.downloaded,
        file_sha256=hash_file(found.path, "sha256"),
        compared_with=f"the published {found.digest.kind}" if found.digest else "nothing: no digest is published",
        identity=loaded.description.sha256,
        without_network=_how_to_carry(text, found.path, publication, cache),
    )


def _not_published(name: TeacherName) -> str:
    return f"are the file {name.path}" if name.path else "come with caev2"


def _how_to_carry(text: str, path: Path, publication: Publication, cache: Path | None) -> str:
    as_file = f"copy the file there and name it: --teacher {text}@/path/{path.name}"
    if publication.repository is None or path.parent == cache:
        return as_file
    folder = (cache or Path(HF_HUB_CACHE)) / f"models--{publication.repository.replace('/', '--')}"
    return (
        f"{as_file}; or copy the folder {folder}, links and all (cp -a, tar, rsync -a), into a folder CACHE there and "
        f"set HF_HUB_CACHE=CACHE and HF_HUB_OFFLINE=1: then --teacher {text} finds it"
    )
