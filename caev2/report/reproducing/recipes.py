"""From a recorded recipe back to words: the built-in recipe that is nearest, and the settings that make up the rest."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from caev2.recipe import merge, to_mapping
from caev2.store.manifest import flatten

T = TypeVar("T")

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_:./-]*")
_SPECIAL = ("none", "null", "true", "false", "inf", "nan")  # what `--set` would not read as a word


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


def nearest_recipe(mapping: Mapping[str, Any], recipes: Mapping[str, T]) -> tuple[str, tuple[str, ...]]:
    """The built-in recipe that differs in the fewest settings, and those settings as `key=value`.

    Args:
        mapping: A recipe as it was recorded: fields that came later are absent at their defaults.
        recipes: The built-in ones by name; of equally near ones the first is taken.

    Raises:
        ConfigError: The mapping is none of this version's recipes.
    """
    found = {name: _settings(base, mapping) for name, base in recipes.items()}
    name = min(found, key=lambda one: len(found[one]))
    return name, found[name]


def _settings(base: Any, mapping: Mapping[str, Any]) -> tuple[str, ...]:
    there = flatten(to_mapping(base))
    wanted = flatten(to_mapping(merge(_without_later(base), mapping, where="the recorded recipe")))
    return tuple(f"{key}={spell(value)}" for key, value in wanted.items() if there[key] != value)


def _without_later(recipe: T) -> T:
    """The recipe as a record sees it that leaves fields out which came later."""
    changes = {}
    for field in dataclasses.fields(recipe):  # type: ignore[arg-type]
        value = getattr(recipe, field.name)
        if field.metadata.get("later"):
            changes[field.name] = field.default
        elif dataclasses.is_dataclass(value):
            changes[field.name] = _without_later(value)
    return dataclasses.replace(recipe, **changes)  # type: ignore[type-var]
