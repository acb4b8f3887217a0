"""Recipes: frozen dataclasses that are read from TOML, overridden by `key=value`, and fingerprinted.

A recipe is a frozen dataclass whose fields are numbers, strings, `Literal` choices, tuples, `None` or further
frozen dataclasses. A key that does not exist or a value of the wrong kind is a `ConfigError` that names the nearest
valid one. A field whose metadata says `speed` changes only how fast a result is computed: it is left out of the
fingerprint. One whose metadata says `later` came after runs were made: at its default, it is left out as well.
"""

import dataclasses
import difflib
import hashlib
import json
import re
import tomllib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from caev2.errors import ConfigError

T = TypeVar("T")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_:./-]*")
_SPECIAL = ("none", "null", "true", "false", "inf", "nan")  # what `--set` would not read as a word


def speed(default: Any) -> Any:
    """A dataclass field that changes only the speed, never the result."""
    return dataclasses.field(default=default, metadata={"speed": True})


def later(default: Any) -> Any:
    """A dataclass field that an earlier version did not have: at its default, it is left out of the fingerprint."""
    return dataclasses.field(default=default, metadata={"later": True})


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: the closest known ones, or all of them."""
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "Did you mean " + " or ".join(repr(match) for match in close) + "?"
    return "Known: " + ", ".join(known) + "."


def choose(name: str, known: Mapping[str, T], what: str) -> T:
    """Look a built-in thing up by name.

    Raises:
        ConfigError: There is none of that name; the message offers the nearest.
    """
    if name not in known:
        raise ConfigError(f"There is no {what} called {name!r}. {nearest(name, known)}")
    return known[name]


def load(name: str, built_in: Mapping[str, T]) -> T:
    """A recipe by its built-in name, or from a TOML file with the same fields.

    A TOML file starts from the defaults of the recipe's class, or from the built-in recipe that its key `base` names.

    Raises:
        ConfigError: No such recipe or file, or the file has an unknown key or an unfitting value.
    """
    path = Path(name)
    if path.suffix != ".toml":
        return choose(name, built_in, "recipe")
    try:
        mapping = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(
            f"The recipe file {path} cannot be read: {problem.strerror}. Give another file, or a built-in recipe: "
            f"{', '.join(sorted(built_in))}."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} is not a TOML file: {problem}.") from None
    if "base" not in mapping:
        return merge(_defaults(next(iter(built_in.values())), path), mapping, where=str(path))
    try:
        base = choose(str(mapping.pop("base")), built_in, "recipe")
    except ConfigError as problem:
        raise ConfigError(f"{path}: {problem}") from None
    return merge(base, mapping, where=str(path))


def _defaults(example: T, path: Path) -> T:
    try:
        return type(example)()
    except TypeError:
        raise ConfigError(
            f'{path} does not say which recipe it starts from. Add a line such as: base = "tiny-300e".'
        ) from None


def override(recipe: T, settings: Iterable[str]) -> T:
    """Apply `key=value` settings, `optimizer.lr=1e-3` for a nested field; all at once, so their order does not matter.

    Raises:
        ConfigError: A setting has no `=`, an unknown key or an unfitting value.
    """
    settings, wanted = list(settings), {}
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign:
            raise ConfigError(f"--set {setting!r} has no value. Write it as key=value.")
        nested: Any = parse_value(text)
        for part in reversed(key.strip().split(".")):
            nested = {part: nested}
        _join(wanted, nested)
    return merge(recipe, wanted, where=" ".join(f"--set {setting}" for setting in settings))


def _join(mapping: dict[str, Any], further: Mapping[str, Any]) -> None:
    """Put further values into a nested mapping."""
    for key, value in further.items():
        if isinstance(value, Mapping) and isinstance(mapping.get(key), dict):
            _join(mapping[key], value)
        else:
            mapping[key] = value


def parse_value(text: str) -> Any:
    """A value as TOML reads it; anything else is a string."""
    if text.strip().lower() in ("none", "null"):
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def spell(value: Any, *, within: bool = False) -> str:
    """A value as `--set` reads it.

    Args:
        value: A number, a text, a list or a mapping of them, true, false or none.
        within: Whether it stands in a list, where texts need quotes.
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ",".join(spell(one, within=True) for one in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{spell(str(key), within=True)} = {spell(one, within=True)}" for key, one in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, str):
        plain = not within and _PLAIN.fullmatch(value) and value.lower() not in _SPECIAL
        return value if plain else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def merge(recipe: T, mapping: Mapping[str, Any], where: str, prefix: str = "") -> T:
    """A copy of `recipe` with the fields that `mapping` names replaced, checked against their types.

    Raises:
        ConfigError: An unknown key, or a value that does not fit its field; the message begins with `where`.
    """
    hints = get_type_hints(type(recipe))
    fields = {field.name for field in dataclasses.fields(recipe)}  # type: ignore[arg-type]
    changes = {}
    for key, value in mapping.items():
        path = prefix + key
        if key not in fields:
            raise ConfigError(f"{where}: there is no setting called {path!r}. {nearest(key, fields)}")
        old = getattr(recipe, key)
        if dataclasses.is_dataclass(old) and isinstance(value, Mapping):
            changes[key] = merge(old, value, where, path + ".")
        else:
            changes[key] = _fit(value, hints[key], where, path)
    try:
        return dataclasses.replace(recipe, **changes)  # type: ignore[type-var]
    except ConfigError as problem:
        raise ConfigError(f"{where}: {problem}") from None


def _fit(value: Any, kind: Any, where: str, path: str) -> Any:
    """`value` as the type `kind`, or a `ConfigError`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        for argument in arguments:
            try:
                return _fit(value, argument, where, path)
            except ConfigError:
                continue
    elif origin is Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{where}: {path} cannot be {value!r}. {nearest(str(value), map(str, arguments))}")
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(_fit(item, one, where, path) for item, one in zip(value, kinds, strict=True))
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}: {path} cannot be {value!r}. Give {_say_kind(kind)}.")


def _say_kind(kind: Any) -> str:
    """A type in words, for a message."""
    arguments = get_args(kind)
    if kind is type(None):
        return "none"
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, arguments))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(map(_say_kind, arguments))
    if dataclasses.is_dataclass(kind):
        return "its settings, such as " + ", ".join(field.name for field in dataclasses.fields(kind)[:3])
    return f"a value of type {kind if arguments else kind.__name__}"


def to_mapping(recipe: Any, *, result_only: bool = False) -> dict[str, Any]:
    """A recipe as plain JSON values; with `result_only`, without the fields that only change the speed."""
    mapping = {}
    for field in dataclasses.fields(recipe):
        if result_only and field.metadata.get("speed"):
            continue
        value = getattr(recipe, field.name)
        if result_only and field.metadata.get("later") and value == field.default:
            continue
        if dataclasses.is_dataclass(value):
            value = to_mapping(value, result_only=result_only)
        mapping[field.name] = list(value) if isinstance(value, tuple) else value
    return mapping


def canonical(mapping: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8."""
    return json.dumps(mapping, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def fingerprint(mapping: Any) -> str:
    """The first 32 hex digits of the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(mapping)).hexdigest()[:32]
