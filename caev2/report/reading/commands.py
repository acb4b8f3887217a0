"""The commands that make what is on the page again, every setting that is not the default in them. Pure."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from caev2.ablate.outcome import GridOutcome
from caev2.errors import ConfigError
from caev2.extract.recipes import RECIPES as EXTRACT_RECIPES
from caev2.pretrain.identity import RunIdentity
from caev2.pretrain.recipes import RECIPES as PRETRAIN_RECIPES
from caev2.report.reading.recipes import nearest_recipe
from caev2.store.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One line for a shell, and what it makes."""

    makes: str
    words: tuple[str, ...]
    """After `caev2`; folders are called IMAGES, STORE, RUN, ..."""
    notes: tuple[str, ...] = ()
    """What the line cannot say."""

    @property
    def line(self) -> str:
        """As one types it."""
        return shlex.join(("caev2", *self.words))


def sets(settings: Iterable[str]) -> list[str]:
    """Settings as words of a command."""
    return [word for setting in settings for word in ("--set", setting)]


def unknown(makes: str, problem: ConfigError, *words: str) -> Command:
    """A command whose settings cannot be told."""
    return Command(makes=makes, words=words, notes=(f"The recipe that was recorded is of another version: {problem}",))


def options(pairs: Iterable[tuple[str, Any, Any]]) -> list[str]:
    """Options whose value is not the default."""
    return [word for name, value, default in pairs if value != default for word in (name, str(value))]


def extract_command(identity: RunIdentity, manifest: Manifest | None) -> Command:
    """What makes the store of a run.

    Args:
        identity: Of the run.
        manifest: Of the store; none: what the run records is all that is known.
    """
    target, notes = identity.target, []
    recorded: dict[str, Any] = {
        "views": identity.views,
        "teacher": target["teacher"]["name"],
        "precision": target["teacher"].get("precision"),
        "taps": [target["tap"]],
        "codec": target.get("codec", "float16"),
        "from_crops": target.get("from_crops", False),
        "target_prefix": identity.recipe["target"].removesuffix(target["tap"].replace(":", "-")),
    }
    if manifest is None:
        notes.append(
            "The run does not record how many views its store has, nor how it keeps them: give the store with --store."
        )
    else:
        spec = manifest.spec
        same = [one for one in spec.targets.values() if one.teacher == target["teacher"]]
        recorded |= {
            "taps": [one.tap for one in same] or recorded["taps"], "view_count": manifest.views,
            "first_view": manifest.first_view, "crops": spec.crops, "layout": manifest.layout,
            "block_images": spec.block_images, "teacher_batch": spec.teacher_batch,
        }  # fmt: skip
        if len(same) < len(spec.targets):
            notes.append(
                "Other targets of this store came from other teachers: `caev2 store graft` puts them together."
            )
    try:
        name, settings = nearest_recipe(recorded, EXTRACT_RECIPES)
    except ConfigError as problem:
        return unknown("the store", problem, "extract", "IMAGES", "STORE")
    return Command(
        makes="the store", words=("extract", "IMAGES", "STORE", "--recipe", name, *sets(settings)), notes=tuple(notes)
    )


def pretrain_command(identity: RunIdentity, makes: str = "the run") -> Command:
    """What trains a run again."""
    if identity.imported:
        return Command(
            makes=makes,
            words=("import", "FILE", "RUN"),
            notes=("FILE holds the weights, which were trained elsewhere.",),
        )
    fresh, notes = identity.online == "fresh", []
    places = ["IMAGES", "RUN"] if fresh else ["STORE", "RUN", "--images", "IMAGES"]
    more = ["--online", identity.online] if identity.online else []
    if fresh:
        notes.append("Views and teacher are those that --views RECIPE names; without it, the recipe's own.")
    if identity.init_from is not None:
        more += ["--init-from", "WEIGHTS"]
        notes.append(f"WEIGHTS are those with the digest {identity.init_from}.")
    try:
        name, settings = nearest_recipe(identity.recipe, PRETRAIN_RECIPES)
    except ConfigError as problem:
        return unknown(makes, problem, "pretrain", *places, *more)
    return Command(
        makes=makes, words=("pretrain", *places, "--recipe", name, *more, *sets(settings)), notes=tuple(notes)
    )


def demo_command(demo: dict[str, Any]) -> Command:
    """All of a demo at once."""
    words = [*(["--quick"] if demo.get("quick") else []), *options([("--seed", demo.get("seed", 0), 0)])]
    return Command(makes="everything here at once", words=("demo", "--out", "OUT", *words))


def grid_command(outcome: GridOutcome) -> Command:
    """All runs of a grid and its table."""
    seeds = ",".join(map(str, outcome.seeds))
    quick = ["--quick"] if outcome.quick else []
    words = ("ablate", "STUDY", outcome.grid, "OUT", *quick, "--images", "IMAGES", "--seeds", seeds)
    return Command(makes=f"every number of the grid {outcome.grid}", words=words)
