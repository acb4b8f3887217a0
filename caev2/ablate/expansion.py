"""From grids to runs: every variant with every seed, as a recipe and a place to learn from. Pure."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caev2.ablate.grids import Grid, Online, Variant, shared_settings
from caev2.errors import ConfigError
from caev2.pretrain.recipes import RECIPES, PretrainRecipe
from caev2.recipe import load, merge


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRun:
    """One run of a grid, as the grid says it; other grids may name the same run otherwise."""

    grid: str
    name: str
    """Stable: `supervision/tokens=visible/seed=0`."""
    variant: str
    seed: int
    values: Mapping[str, str]
    """By axis, the name of the value."""
    settings: Mapping[str, Any]
    """What is set beside the recipe, by dotted name."""
    recipe: PretrainRecipe
    store: str
    """Which it learns from; with a live teacher, the one whose views are imitated."""
    online: Online | None


def expand(grid: Grid, overrides: Mapping[str, Any] | None = None) -> tuple[GridRun, ...]:
    """All runs of a grid in the order of its table: variants as the axes give them, then seeds.

    Args:
        grid: What is varied.
        overrides: Settings by dotted name for all runs, in the place of those of the grid.

    Raises:
        ConfigError: There is no such recipe or setting, a value does not fit, or an axis varies what is overridden.
    """
    given = {**grid.settings, **shared_settings(overrides or {}, grid)}
    if "seed" in given or any("seed" in axis.touched for axis in grid.axes):
        raise ConfigError(f"Grid {grid.name}: seeds are no setting but the grid's `seeds`, or --seeds 0,1,2.")
    try:
        base = load(grid.recipe, RECIPES)
    except ConfigError as problem:
        raise ConfigError(f"Grid {grid.name}: {problem}") from None
    return tuple(
        _run(grid, variant, seed, recipe)
        for variant in grid.variants
        for recipe in [_recipe(base, {**given, **variant.settings}, f"{grid.name}/{variant.name}")]
        for seed in grid.seeds
    )


def _run(grid: Grid, variant: Variant, seed: int, recipe: PretrainRecipe) -> GridRun:
    return GridRun(
        grid=grid.name,
        name=grid.run_name(variant, seed),
        variant=variant.name,
        seed=seed,
        values=variant.names,
        settings=variant.settings,
        recipe=dataclasses.replace(recipe, seed=seed),
        store=variant.store or grid.store,
        online=variant.online,
    )


def _recipe(base: PretrainRecipe, settings: Mapping[str, Any], where: str) -> PretrainRecipe:
    """The recipe of a variant; of a finished run, one checkpoint is enough."""
    nested: dict[str, Any] = {"keep_checkpoints": 1}
    for name, value in settings.items():
        *above, last = name.split(".")
        inner = nested
        for part in above:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{where}: {name} lies within a setting that is given as a whole.")
        inner[last] = _or_none(base, above, last, value)
    return merge(base, nested, where=where)


def _or_none(base: Any, above: Sequence[str], last: str, value: Any) -> Any:
    """`"none"`, which TOML has no other word for, where the field takes no such text."""
    if value != "none":
        return value
    for part in above:
        base = getattr(base, part, None)
    if not dataclasses.is_dataclass(base):
        return value
    try:
        merge(base, {last: value}, where="")
    except ConfigError:
        return None
    return value
