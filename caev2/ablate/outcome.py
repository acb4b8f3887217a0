"""What a grid found, as plain data: tables, plots and pages are made of it, and `outcome.json` keeps it."""

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caev2.ablate.stored import StoredTarget, stored_target_of
from caev2.errors import ConfigError
from caev2.store.codecs.quality import Quality
from caev2.store.disk import write_whole, writing

FILE_NAME = "outcome.json"
Setting = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One number of one run. Shares (accuracies, cosines) lie in 0 .. 1; the loss is what the run minimised."""

    value: float
    low: float | None = None
    """Lower end of the 95 % interval over judged images, where there is one."""
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """One run of a grid."""

    name: str
    """Stable: `supervision/tokens=visible/seed=0`."""
    variant: str
    """Everything but the seed, in words: `tokens=visible`. Equal for the runs that differ in the seed alone."""
    seed: int
    fingerprint: str
    """Of the pre-training run, which lies in `OUT/runs/<fingerprint>`; grids share it."""
    settings: dict[str, Setting]
    """By axis: the name of this run's value on it."""
    recipe: dict[str, Any]
    """The whole recipe, as `caev2 pretrain --set` spells it: nested."""
    store: str | None
    """Name of the store in the study; none: a live teacher made the targets."""
    scores: dict[str, Score] = field(default_factory=dict)
    """By metric: `knn`, `linear`, `loss`, `cosine_class`, `cosine_visible`, `cosine_masked`."""
    failure: str | None = None
    """Why there are no scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What a grid varies."""

    name: str
    values: tuple[str, ...]
    """Their names, in the order of the table."""
    baseline: str
    """The value that the others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridOutcome:
    """All runs of a grid, done or failed, in the order of the table: variants as the axes give them, then seeds."""

    grid: str
    """Its name, which is also that of its folder."""
    title: str
    claim: str
    """What it tests, in a sentence; empty for a grid of one's own that does not say."""
    source: str
    """Who claims it: paper and table, or ours."""
    quick: bool
    """Whether it is the small form, whose numbers say little of the full one."""
    axes: tuple[Axis, ...]
    baseline: str
    """The variant that the others are compared with."""
    metrics: tuple[str, ...]
    """Those of `scores` that the table shows, the most telling first."""
    seeds: tuple[int, ...]
    runs: tuple[RunOutcome, ...]
    val_images: int | None = None
    """How many images judged each run."""
    classes: int | None = None
    """Into how many classes."""
    recipe: str = ""
    """What settings are beside: a built-in recipe, or the name of a file."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """What `--set` gave for all runs, by dotted name."""
    built_in: bool | None = None
    """Whether its name is enough to make it again; else it is a file. None: an older version did not say."""
    judged_apart: bool = False
    """Whether other images judged (`--probe-images`) than those that the stores were extracted from."""
    targets: tuple[StoredTarget, ...] = ()
    """What runs learned from, as it is stored; nothing: an older version did not say, or teachers were live."""

    @property
    def variants(self) -> tuple[str, ...]:
        """In the order of the table."""
        return tuple(dict.fromkeys(run.variant for run in self.runs))

    def of(self, variant: str) -> tuple[RunOutcome, ...]:
        """The runs of a variant, by seed."""
        return tuple(run for run in self.runs if run.variant == variant)

    def mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


def write_outcome(outcome: GridOutcome, folder: Path) -> Path:
    """Write `folder/outcome.json`, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    content = (json.dumps(outcome.mapping(), indent=1, ensure_ascii=False) + "\n").encode()
    with writing(folder):
        write_whole(folder / FILE_NAME, content, scratch=folder)
    return folder / FILE_NAME


def read_outcome(folder: Path) -> GridOutcome:
    """The outcome that `write_outcome` left in a folder.

    Raises:
        ConfigError: There is none, or it is damaged.
    """
    path = folder / FILE_NAME
    try:
        found = json.loads(path.read_bytes())
        axes = tuple(Axis(**{**axis, "values": tuple(axis["values"])}) for axis in found.pop("axes"))
        runs = tuple(_run(one) for one in found.pop("runs"))
        targets = tuple(stored_target_of(one) for one in found.pop("targets", ()))
        lists = {name: tuple(found.pop(name)) for name in ("metrics", "seeds")}
        outcome = GridOutcome(axes=axes, runs=runs, targets=targets, **lists, **found)
        _refuse_other_types(outcome)
        return outcome
    except OSError as problem:
        raise ConfigError(f"{path} cannot be read: {problem.strerror}. Run `caev2 ablate` first.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ConfigError(
            f"{path} is not what `caev2 ablate` writes ({problem}). Run the grid again: what it computed is kept."
        ) from None


def outcomes_below(out: Path, warn: Callable[[str], None]) -> list[GridOutcome]:
    """What was found by every grid whose folder lies in `out`; a damaged one is told and left out."""
    found = []
    for path in sorted(out.glob(f"*/{FILE_NAME}")):
        try:
            found.append(read_outcome(path.parent))
        except ConfigError as problem:
            warn(f"{problem} Until then it is on no page.")
    return found


def _run(found: dict[str, Any]) -> RunOutcome:
    scores = {name: Score(**score) for name, score in found.pop("scores").items()}
    return RunOutcome(scores=scores, **found)


_TEXT, _WHOLE, _NUMBER = (str,), (int,), (int, float)
_MAYBE = (type(None),)


def _refuse_other_types(outcome: GridOutcome) -> None:
    """Refuse values that tables and pages could not be made of.

    Raises:
        TypeError: A value is of another type.
    """
    _expect(outcome, _TEXT, "grid", "title", "claim", "source", "baseline", "recipe")
    _expect(outcome, (bool,), "quick")
    _expect(outcome, _WHOLE + _MAYBE, "val_images", "classes")
    _expect_all("metrics", outcome.metrics, _TEXT)
    _expect_all("seeds", outcome.seeds, _WHOLE)
    for axis in outcome.axes:
        _expect(axis, _TEXT, "name", "baseline")
        _expect_all("values", axis.values, _TEXT)
    for target in outcome.targets:
        _expect(target, _TEXT, "store", "digest", "target", "codec")
        _expect(target, _WHOLE, "images", "views", "row_bytes")
        _refuse_other_figures(target.quality)
    for run in outcome.runs:
        _expect(run, _TEXT, "name", "variant", "fingerprint")
        _expect(run, _WHOLE, "seed")
        _expect(run, _TEXT + _MAYBE, "store", "failure")
        _expect(run, (dict,), "settings", "recipe")
        for score in run.scores.values():
            _expect(score, _NUMBER, "value")
            _expect(score, _NUMBER + _MAYBE, "low", "high")


def _refuse_other_figures(quality: Quality | None) -> None:
    kinds = () if quality is None else (quality.class_token, quality.patch_tokens)
    for figures in kinds:
        if figures is not None:
            names = [one.name for one in dataclasses.fields(figures)]
            _expect(figures, _NUMBER + _MAYBE, "relative_error")
            _expect(figures, _NUMBER, *(name for name in names if name != "relative_error"))


def _expect(one: Any, kinds: tuple[type, ...], *names: str) -> None:
    for name in names:
        _expect_all(name, (getattr(one, name),), kinds)


def _expect_all(name: str, values: Iterable[Any], kinds: tuple[type, ...]) -> None:
    for value in values:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise TypeError(f"{name} is {value!r:.60}")
