"""The command that trains a run again. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caev2.errors import ConfigError
from caev2.extract.recipes import RECIPES as EXTRACT_RECIPES
from caev2.extract.recipes import ExtractRecipe
from caev2.pretrain.identity import RunIdentity
from caev2.pretrain.recipes import RECIPES
from caev2.report.reproducing.commands import Command, say_digest, sets, unknown
from caev2.report.reproducing.extracting import teacher_settings
from caev2.report.reproducing.recipes import nearest_recipe
from caev2.report.reproducing.teachers import name_teacher

_KEYS_SHOWN = 20
_DEFAULT_VIEWS = "base-300e"  # of `caev2 pretrain --views`, where there are none of the recipe's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What folders are called in a command."""

    store: str = "STORE"
    run: str = "RUN"
    judging: str = "IMAGES"
    """Labelled images that judge."""


def pretrain_command(
    identity: RunIdentity, makes: str = "the run", *, places: Places | None = None, judged: int | None = None
) -> Command:
    """What trains a run again.

    Args:
        identity: Of the run.
        makes: What is said of it.
        places: What its folders are called.
        judged: Every how many epochs nearest neighbours judged it, which no identity has; none: nobody did.
    """
    places = places or Places()
    if identity.imported:
        note = "FILE holds the weights, which were trained elsewhere."
        return Command(makes=makes, words=("import", "FILE", places.run), notes=(note,))
    fresh = identity.online == "fresh"
    where = (
        ["pretrain", "IMAGES", places.run] if fresh else ["pretrain", places.store, places.run, "--images", "IMAGES"]
    )
    try:
        name, settings = nearest_recipe(identity.recipe, RECIPES)
        more, notes = _say_teacher(identity, name)
    except ConfigError as problem:
        return unknown(makes, problem, *where)
    if identity.init_from is not None:
        more += ["--init-from", "WEIGHTS"]
        notes.append(f"WEIGHTS are those with the digest {identity.init_from}.")
    if judged is not None:
        more += ["--knn", places.judging]
        settings = (*settings, *([f"knn_epochs={judged}"] if judged != RECIPES[name].knn_epochs else []))
    return Command(makes=makes, words=(*where, "--recipe", name, *more, *sets(settings)), notes=tuple(notes))


def epochs_between(records: Sequence[dict[str, Any]]) -> int | None:
    """Every how many epochs a log says that nearest neighbours judged the student; none: it does not say so."""
    epochs = [one.get("epoch") for one in records if "knn_percent" in one]
    first = epochs[0] if epochs else None
    return first + 1 if isinstance(first, int) else None


def _say_teacher(identity: RunIdentity, recipe: str) -> tuple[list[str], list[str]]:
    """Options of a live teacher, and what they leave open."""
    if identity.online is None:
        return [], []
    teacher = name_teacher(identity.target["teacher"])
    notes = [] if teacher.note is None else [teacher.note]
    words = ["--online", identity.online]
    if identity.online != "fresh":
        return [*words, *([] if teacher.is_found else ["--teacher", teacher.name])], notes
    views, said = _say_views(identity, recipe)
    left_out, kept = _say_left_out(identity.source.get("left_out") or [])
    digest = f"IMAGES have the digest {say_digest(identity.source.get('digest'))}."
    return [*words, *views, *left_out], [*notes, *said, *kept, digest]


def _say_views(identity: RunIdentity, recipe: str) -> tuple[list[str], list[str]]:
    """`--views` and `--teacher`; where no built-in recipe has these views, a file of one's own, told line by line."""
    recorded, source = identity.target["teacher"], identity.source
    teacher = name_teacher(recorded)
    wanted = {**teacher_settings(recorded, teacher), "views": identity.views}
    wanted |= {name: source[name] for name in ("crops", "from_crops", "block_images") if name in source}
    batch = source.get("teacher_batch")
    if batch not in (None, min(ExtractRecipe().teacher_batch, identity.recipe["batch_size"])):
        wanted["teacher_batch"] = batch
    name, settings = nearest_recipe(wanted, EXTRACT_RECIPES)
    precision = wanted["precision"]
    others = [one for one in settings if not one.startswith(("teacher=", "precision="))]
    asked = ["--teacher", teacher.name] if teacher.name != EXTRACT_RECIPES[name].teacher else []
    if not others:
        default = recipe if recipe in EXTRACT_RECIPES else _DEFAULT_VIEWS
        note = (
            f"The teacher computed in {precision}, as it does by itself on a {'CPU' if precision == 'fp32' else 'GPU'}."
        )
        same = name == default or EXTRACT_RECIPES[default] == EXTRACT_RECIPES[name]
        return [*([] if same else ["--views", name]), *asked], [note]
    return ["--views", "VIEWS.toml", *asked], [_say_file("VIEWS.toml", name, [*others, f"precision={precision}"])]


def _say_file(file: str, base: str, settings: Sequence[str]) -> str:
    """The lines of a recipe file, as TOML has them."""
    lines = [f'base = "{base}"']
    for setting in settings:
        key, _, value = setting.partition("=")
        plain = value[:1] in '["-0123456789' or value in ("true", "false")
        if value == "none":
            return f"No file of views can say {setting}: TOML has no none. Such views are drawn from Python alone."
        lines.append(f"{key} = {value}" if plain else f'{key} = "{value}"')
    return f"{file} has the lines: {'; '.join(lines)}"


def _say_left_out(keys: Sequence[str]) -> tuple[list[str], list[str]]:
    if not keys:
        return [], []
    shown = ", ".join(keys[:_KEYS_SHOWN]) + (", …" if len(keys) > _KEYS_SHOWN else "")
    note = f"KEYS.txt holds the keys of {len(keys):,} images, one a line, as run.json lists them: {shown}."
    return ["--leave-out", "KEYS.txt"], [note]
