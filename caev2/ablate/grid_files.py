"""Grids from TOML files: every key is known, and values become the recipe's types when the grid is planned."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from caev2.ablate.built_in import built_in_grids
from caev2.ablate.grids import Grid, GridAxis, Value
from caev2.ablate.making import StoreMaking
from caev2.errors import ConfigError
from caev2.recipe import nearest
from caev2.store.manifest import flatten

_AXIS = ("name", "field", "values", "baseline", "value")
_VALUE = ("name", "set", "store", "online")
_GRID = (
    "title",
    "claim",
    "source",
    "recipe",
    "seeds",
    "evaluations",
    "metrics",
    "curves",
    "store",
    "stores",
    "set",
    "axis",
)
_OF_CONVERT = ("of", "targets", "any_quality")
_PLACES = ("store", "online")
"""What an axis may vary that is no field of the recipe."""


def read_grid(path: Path) -> Grid:
    """The grid of a TOML file, called like the file.

    Raises:
        ConfigError: It cannot be read, has an unknown key, is no grid, or is called like a built-in one.
    """
    if path.stem in built_in_grids(quick=False):
        raise ConfigError(f"{path} is called like a built-in grid, and would write over its folder. Rename the file.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"The grid file {path} cannot be read: {problem.strerror}. Give another file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} is not a TOML file: {problem}.") from None
    try:
        return grid_of(path.stem, content, folder=path.parent)
    except ConfigError as problem:
        raise ConfigError(f"{path}: {problem}") from None


def grid_of(name: str, content: Mapping[str, Any], folder: Path | None = None) -> Grid:
    """A grid from plain values, as TOML has them; a recipe file is looked for in `folder` first.

    Raises:
        ConfigError: An unknown key, or a value of the wrong kind.
    """
    _refuse_unknown(content, _GRID, "a grid")
    given: dict[str, Any] = {}
    for key, kind in (
        ("title", str),
        ("claim", str),
        ("source", str),
        ("recipe", str),
        ("store", str),
        ("curves", bool),
    ):
        if key in content:
            given[key] = _of_kind(content[key], kind, key)
    for key, kind in (("seeds", int), ("evaluations", str), ("metrics", str)):
        if key in content:
            given[key] = tuple(_of_kind(one, kind, key) for one in _of_kind(content[key], list, key))
    if folder is not None and (folder / given.get("recipe", "")).is_file():
        given["recipe"] = str(folder / given["recipe"])
    makings = _of_kind(content.get("stores", {}), dict, "stores")
    return Grid(
        name=name,
        axes=tuple(_axis(one) for one in _of_kind(content.get("axis", []), list, "axis")),
        settings=flatten(_of_kind(content.get("set", {}), dict, "set")),
        stores={store: _making(making, f"stores.{store}") for store, making in makings.items()},
        **given,
    )


def _axis(content: Any) -> GridAxis:
    content = _of_kind(content, dict, "axis")
    _refuse_unknown(content, _AXIS, "an axis")
    name = _of_kind(content.get("name"), str, "axis.name")
    where = f"axis {name!r}"
    if ("values" in content) == ("value" in content):
        raise ConfigError(f"{where}: give either `field` and `values`, or one [[axis.value]] after another.")
    if "values" in content:
        field = _of_kind(content.get("field"), str, f"{where}: field")
        values = tuple(_simple(field, one) for one in _of_kind(content["values"], list, f"{where}: values"))
    elif "field" in content:
        raise ConfigError(f"{where}: `field` goes with `values`; each [[axis.value]] has a `set`.")
    else:
        values = tuple(_value(one, where) for one in _of_kind(content["value"], list, f"{where}: value"))
    if not values:
        raise ConfigError(f"{where} has no values. Give it one at least.")
    return GridAxis(name=name, values=values, baseline=say_value(content.get("baseline", values[0].name)))


def _simple(field: str, value: Any) -> Value:
    """A value of an axis over one field, or over stores."""
    if field == "online":
        return Value(name=say_value(value), online=_online(value))
    if field == "store":
        return Value(name=say_value(value), store=_of_kind(value, str, "store"))
    return Value(name=say_value(value), settings={field: value})


def _value(content: Any, where: str) -> Value:
    content = _of_kind(content, dict, f"{where}: value")
    _refuse_unknown(content, _VALUE, f"a value of {where}")
    return Value(
        name=say_value(content.get("name")),
        settings=flatten(_of_kind(content.get("set", {}), dict, f"{where}: set")),
        store=None if "store" not in content else _of_kind(content["store"], str, f"{where}: store"),
        online=_online(content.get("online")),
    )


def _online(value: Any) -> Any:
    if value in (None, "none"):
        return None
    if value != "fresh":
        raise ConfigError(f"online cannot be {value!r}. Give 'fresh', or leave it away.")
    return value


def _making(content: Any, where: str) -> StoreMaking:
    content = _of_kind(content, dict, where)
    _refuse_unknown(content, ("extract", "convert", *_OF_CONVERT), where)
    if ("convert" in content) == ("extract" in content):
        raise ConfigError(f"{where}: say either `convert`, a codec, or `extract`, further words of `caev2 extract`.")
    if "extract" in content and (more := sorted(set(content) & set(_OF_CONVERT))):
        raise ConfigError(f"{where}: {more[0]} goes with `convert`; to `extract`, add the words of `caev2 extract`.")
    words = {key: _of_kind(content[key], str, f"{where}.{key}") for key in ("convert", "of") if key in content}
    return StoreMaking(
        **words,
        targets=_texts(content, "targets", where),
        any_quality=_of_kind(content.get("any_quality", False), bool, f"{where}.any_quality"),
        extract=_texts(content, "extract", where),
    )


def _texts(content: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    found = _of_kind(content.get(key, []), list, f"{where}.{key}")
    return tuple(_of_kind(word, str, f"{where}.{key}") for word in found)


def say_value(value: Any) -> str:
    """The name of a value that has no other: a number to its last digit, and a whole one without a point."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _refuse_unknown(content: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    for key in content:
        if key not in known:
            raise ConfigError(f"There is no key {key!r} in {what}. {nearest(key, known)}")


def _of_kind(value: Any, kind: type, key: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        words = {str: "a text", int: "a whole number", list: "a list", dict: "a table", bool: "true or false"}
        raise ConfigError(f"{key} cannot be {value!r}. Give {words[kind]}.")
    return value
