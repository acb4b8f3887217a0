"""Which column of a table has the images, which one the labels, and what the classes are called."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from caev2.errors import SourceError
from caev2.store.sources.at_url import SourcePath

if TYPE_CHECKING:
    import pyarrow as pa

_LABEL = "label"
_LIKELY = ("image", "img", "jpg", "jpeg", "png", "webp")


@dataclass(frozen=True, slots=True)
class Features:
    """The columns that a source needs."""

    image: str
    label: str | None
    classes: tuple[str, ...] | None
    """In the order of their numbers; none: the table does not name them."""


def find_features(path: SourcePath, schema: "pa.Schema", column: str | None) -> Features:
    """Find the columns of a table.

    Images are in the column that is asked for; else in the one that the table's Hugging Face metadata call an image;
    else in the one with `bytes` and `path`; else in the one of bytes, the likeliest by its name.

    Args:
        path: Of the table, for messages.
        schema: Its columns; metadata of `datasets` are used if it has some.
        column: The one that is asked for.

    Raises:
        SourceError: None or several could be meant, or the metadata cannot be read.
    """
    told = _read_metadata(path, schema)
    able = [field.name for field in schema if _holds_images(field.type)]
    label = _find_label(schema, told)
    names = told.get(label, {}).get("names") if label else None
    classes = tuple(map(str, names)) if isinstance(names, list) else None
    if column is not None:
        if column not in able:
            raise SourceError(f"{path} has no column {column!r} of images; it has {_list(able)}. Name one of those.")
        return Features(column, label, classes)
    image_like = [name for name in able if told.get(name, {}).get("_type") == "Image"]
    structs = [name for name in able if not _is_binary(schema.field(name).type)]
    likely = [name for name in _LIKELY if name in able][:1]
    for some in (image_like, structs, likely, able):
        if len(some) == 1:
            return Features(some[0], label, classes)
        if some:
            raise SourceError(
                f"{path} has several columns of images: {_list(some)}. Say which: {path.parent}#{some[0]}"
            )
    raise SourceError(
        f"{path} has no column of images, neither bytes nor a pair of bytes and path; it has {_list(schema.names)}."
    )


def _read_metadata(path: SourcePath, schema: "pa.Schema") -> dict[str, Any]:
    """What `datasets` wrote of each column; empty where it wrote nothing."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        features = json.loads(text)["info"]["features"] or {}
        return {name: told for name, told in features.items() if isinstance(told, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SourceError(f"{path}: the metadata that datasets wrote cannot be read: {text[:200]!r}.") from None


def _find_label(schema: "pa.Schema", told: dict[str, Any]) -> str | None:
    """The column called `label`, of numbers or names; else the only one that is called a class."""
    import pyarrow.types as kinds

    classes = [name for name, one in told.items() if one.get("_type") == "ClassLabel" and name in schema.names]
    if _LABEL in schema.names:
        kind = schema.field(_LABEL).type
        return _LABEL if kinds.is_integer(kind) or kinds.is_string(kind) or kinds.is_large_string(kind) else None
    return classes[0] if len(classes) == 1 else None


def _holds_images(kind: "pa.DataType") -> bool:
    import pyarrow.types as kinds

    if not kinds.is_struct(kind):
        return _is_binary(kind)
    return any(field.name == "bytes" and _is_binary(field.type) for field in kind.fields)


def _is_binary(kind: "pa.DataType") -> bool:
    import pyarrow.types as kinds

    return kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind)


def _list(names: list[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
