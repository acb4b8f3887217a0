"""A grid: what is varied, over which recipe, with which seeds, and how each run is judged.

Pure: nothing here touches a disk. Axes are crossed; a variant is one value of each, and every variant is run with the
same seeds, so that two of them can be compared pair by pair.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from caev2.ablate.making import DEFAULT_STORE, StoreMaking
from caev2.errors import ConfigError
from caev2.recipe import nearest

EVALUATIONS: dict[str, tuple[str, ...]] = {
    "knn": ("knn",),
    "linear": ("linear",),
    "few-shot": ("1-shot", "5-shot", "10-shot"),
    "attentive": ("attentive",),
    "official-linear": ("official linear",),
}
"""Kinds of `caev2 probe`, and the numbers that each gives."""
LOGGED = ("loss", "cosine_class", "cosine_visible", "cosine_masked")
"""Numbers that every run's log gives."""
RESERVED = ("runs",)
"""What no grid can be called: folders beside those of grids."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ +-]*")
Online = Literal["fresh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value of an axis: a name, and what it sets."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Recipe fields by dotted name: `loss.visible_weight`."""
    store: str | None = None
    """Which store of the study; none: as the other axes say, or the default."""
    online: Online | None = None
    """`fresh`: a live teacher, and views drawn as the store's were, instead of the store's."""

    def __post_init__(self):
        check_name(self.name, "value of an axis")
        if self.store is not None:
            check_name(self.store, "store")


@dataclass(frozen=True, slots=True, kw_only=True)
class GridAxis:
    """What is varied, and over which values."""

    name: str
    values: tuple[Value, ...]
    baseline: str
    """Name of the value that the others are compared with."""

    def __post_init__(self):
        check_name(self.name, "axis")
        names = [value.name for value in self.values]
        if not names:
            raise ConfigError(f"Axis {self.name!r} has no values. Give it one at least.")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"Axis {self.name!r} has two values called {twice[0]!r}. Give each a name of its own.")
        if self.baseline not in names:
            raise ConfigError(f"Axis {self.name!r} has no value {self.baseline!r}. {nearest(self.baseline, names)}")

    @property
    def touched(self) -> set[str]:
        """What any of its values sets."""
        fields = {name for value in self.values for name in value.settings}
        return fields | {word for value in self.values for word in ("store", "online") if getattr(value, word)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What is varied, and everything that stays."""

    name: str
    axes: tuple[GridAxis, ...]
    title: str = ""
    claim: str = ""
    """What it tests, in a sentence."""
    source: str = ""
    """Who claims it."""
    recipe: str = "base-100e"
    """Built-in pre-training recipe, or a TOML file."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Recipe fields by dotted name, for all runs; an axis may say otherwise."""
    seeds: tuple[int, ...] = (0, 1, 2)
    evaluations: tuple[str, ...] = ("knn", "linear")
    """Kinds of `caev2 probe`."""
    metrics: tuple[str, ...] = ()
    """Which numbers its table shows, the most telling first; none: those of its evaluations."""
    curves: bool = False
    """Whether nearest neighbours judge the student every `knn_epochs` epochs, which costs time."""
    store: str = DEFAULT_STORE
    """Which store of the study is used where no axis says."""
    stores: Mapping[str, StoreMaking] = field(default_factory=dict)
    """How stores are made."""
    quick: bool = False
    """Whether it is the small form."""

    def __post_init__(self):
        check_name(self.name, "grid")
        if self.name in RESERVED:
            raise ConfigError(f"A grid cannot be called {self.name!r}: that folder holds what grids share.")
        self._check_axes()
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"Grid {self.name}: seeds are {list(self.seeds)}. Give one at least, each once.")
        self._check_words("evaluation", self.evaluations, EVALUATIONS)
        self._check_words("metric", self.metrics, self.known_metrics)
        for store in (self.store, *self.stores):
            check_name(store, "store")

    def _check_words(self, what: str, words: Sequence[str], known: Iterable[str]) -> None:
        """Each is known, and said once."""
        for word in words:
            if word not in known:
                raise ConfigError(f"Grid {self.name}: no {what} {word!r}. {nearest(word, known)}")
            if words.count(word) > 1:
                raise ConfigError(f"Grid {self.name}: the {what} {word!r} is given twice. Give it once.")

    def _check_axes(self) -> None:
        names = [axis.name for axis in self.axes]
        if not names:
            raise ConfigError(f"Grid {self.name} varies nothing. Give it an axis.")
        if any("ema_decay" in axis.touched for axis in self.axes):
            raise ConfigError(
                f"Grid {self.name}: an axis varies ema_decay, which changes averaged weights alone, and runs are "
                "judged by those that training ends with. For averaged ones there is `caev2 probe --ema`."
            )
        if len(set(names)) < len(names) or "seed" in names:
            raise ConfigError(f"Grid {self.name}: axes are called {names}. Give each a name of its own, but `seed`.")
        for one, other in itertools.combinations(self.axes, 2):
            for name in sorted(one.touched):
                if clash := next((n for n in sorted(other.touched) if _overlap(name, n)), None):
                    raise ConfigError(
                        f"Grid {self.name}: the axes {one.name!r} and {other.name!r} both set {clash}. Join them into "
                        "one axis, whose values have a `set` each."
                    )

    @property
    def known_metrics(self) -> tuple[str, ...]:
        """Every number that a run of it has."""
        return (*(name for kind in self.evaluations for name in EVALUATIONS[kind]), *LOGGED)

    @property
    def shown_metrics(self) -> tuple[str, ...]:
        """Those of the table."""
        return self.metrics or tuple(name for kind in self.evaluations for name in EVALUATIONS[kind])

    @property
    def variants(self) -> tuple["Variant", ...]:
        """Every combination of values, the last axis fastest."""
        return tuple(
            Variant(axes=self.axes, values=chosen) for chosen in itertools.product(*(a.values for a in self.axes))
        )

    @property
    def baseline(self) -> str:
        """The variant that the others are compared with."""
        return variant_name((axis.name, axis.baseline) for axis in self.axes)

    def run_name(self, variant: "Variant", seed: int) -> str:
        """Stable: `supervision/tokens=visible/seed=0`."""
        return f"{self.name}/{variant.name}/seed={seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One value of each axis."""

    axes: tuple[GridAxis, ...]
    values: tuple[Value, ...]

    @property
    def name(self) -> str:
        """`tokens=visible`; of several axes `average=group_mean/masked=32`."""
        return variant_name((axis.name, value.name) for axis, value in zip(self.axes, self.values, strict=True))

    @property
    def names(self) -> dict[str, str]:
        """By axis, the name of the value."""
        return {axis.name: value.name for axis, value in zip(self.axes, self.values, strict=True)}

    @property
    def settings(self) -> dict[str, Any]:
        """Recipe fields by dotted name; no two values set the same."""
        return {name: setting for value in self.values for name, setting in value.settings.items()}

    @property
    def store(self) -> str | None:
        """Which store a value names."""
        return next((value.store for value in self.values if value.store), None)

    @property
    def online(self) -> Online | None:
        """Whether a value asks for a live teacher."""
        return next((value.online for value in self.values if value.online), None)


def variant_name(pairs: Iterable[tuple[str, str]]) -> str:
    """What a variant is called, of axes and values by name."""
    return "/".join(f"{axis}={value}" for axis, value in pairs)


def check_name(name: str, what: str) -> None:
    """Names become parts of names of runs and folders.

    Raises:
        ConfigError: This one could not.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"A {what} cannot be called {name!r}: use letters, digits, spaces and . _ + -, the first a letter or digit."
        )


def _overlap(one: str, other: str) -> bool:
    """Whether two dotted fields are the same, or one lies within the other."""
    return one == other or one.startswith(other + ".") or other.startswith(one + ".")


def shared_settings(settings: Mapping[str, Any], grid: Grid) -> Mapping[str, Any]:
    """Settings for all runs, which no axis may vary.

    Raises:
        ConfigError: One does.
    """
    for axis in grid.axes:
        for name in settings:
            if clash := next((field for field in sorted(axis.touched) if _overlap(name, field)), None):
                raise ConfigError(
                    f"--set {name}: axis {axis.name!r} of grid {grid.name} varies {clash}. Leave it away."
                )
    return settings
