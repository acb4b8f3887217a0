"""From a recorded recipe back to words: the built-in recipe that is nearest, and the settings that make up the rest."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from caev2.recipe import merge, spell, to_mapping
from caev2.store.manifest import flatten

T = TypeVar("T")


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
