"""Who is judged: what `caev2 probe` and `caev2 segment` are told, in words, as entrants."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caev2.errors import ConfigError

if TYPE_CHECKING:
    from caev2.eval.entrants import Entrant, RunEntry

NAMES = "[RUN | FILE | timm:MODEL] IMAGES"
_TIMM = "timm:"

size_option = click.option(
    "--size",
    "size_px",
    type=int,
    default=None,
    help="timm: side of the crops in pixels. Default: that of the model's published weights.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Everybody that a command names."""

    entrants: list["Entrant"]
    run: Path | None = None
    """Beside which the outcome is written, if there is one."""
    entry: "RunEntry | None" = field(default=None)
    """What that run is."""

    @property
    def cache(self) -> Path | None:
        """Where features are kept if nothing else is said."""
        return None if self.run is None else self.run / "features"


def name_subjects(
    words: Sequence[object],
    *,
    random_init: str | None,
    teacher: str | None,
    only: bool,
    seed: int,
    size_px: int | None,
    pixels: int | None = None,
    ema: bool = False,
) -> Named:
    """Look up who is named; no weights are read.

    Args:
        words: A run's folder, files of weights, names of timm's models, or nothing.
        random_init: A recipe whose untrained student takes part.
        teacher: A teacher that takes part.
        only: Whether runs and models stand without their random starts and teachers.
        seed: Of random starts.
        size_px: Side of the crops of timm's models.
        pixels: Side of crops whose pixels take part.
        ema: Whether the run's averaged weights take part.

    Raises:
        ConfigError: Nobody is named, or two runs, or an option belongs to somebody who is not.
        CheckpointError: There is no such run, or it has no checkpoint.
    """
    from caev2.eval import entrants as who
    from caev2.eval.file_entrants import FileEntry
    from caev2.eval.timm_entrants import TimmEntry

    models = [TimmEntry.parse(str(word), size_px) for word in words if str(word).startswith(_TIMM)]
    paths = [word for word in words if isinstance(word, Path) and not str(word).startswith(_TIMM)]
    files = [FileEntry(path=path) for path in paths if FileEntry.fits(path)]
    runs = [path for path in paths if not FileEntry.fits(path)]
    somebody = bool(files or models or random_init or teacher or pixels is not None)
    _refuse_words(len(words) - len(models) - len(files), runs, somebody)
    _refuse_strays(runs, files, models, only=only, ema=ema, size_px=size_px)
    entry = who.RunEntry.find(runs[0]) if runs else None
    chosen = [who.pixels(pixels)] if pixels is not None else []
    if random_init is not None:
        chosen.append(who.random_start(random_init, seed))
    if teacher is not None:
        chosen += entry.teachers(teacher) if entry and not only else [who.named_teacher(teacher)]
    for file in files:
        chosen += [file.student()] if only else [file.random_start(seed), file.student()]
    for model in models:
        chosen += [model.pretrained()] if only else [model.random_start(seed), model.pretrained()]
    if entry is not None:
        chosen += [entry.student(), entry.student(averaged=True)] if ema else [entry.student()]
    if entry is not None and not only:
        chosen.append(entry.random_start())
        chosen += [entry.teacher()] if teacher is None else []
    return Named(entrants=chosen, run=runs[0] if runs else None, entry=entry)


def _refuse_words(others: int, runs: Sequence[Path], somebody: bool) -> None:
    if others > 1 or others > len(runs) or not (runs or somebody):
        raise ConfigError(
            f"Name what to judge and the images: `RUN IMAGES`, with one run, not {others}; `FILE IMAGES` or "
            "`timm:MODEL IMAGES`; or --random-init RECIPE, --teacher NAME, or for `caev2 probe` --pixels SIZE, in "
            "place of them or added."
        )


def _refuse_strays(
    runs: Sequence, files: Sequence, models: Sequence, *, only: bool, ema: bool, size_px: int | None
) -> None:
    """Refuse options that belong to somebody who is not named."""
    for given, option, belongs, there in (
        (only, "--only leaves out", "a run, a file or a model of timm", bool(runs or files or models)),
        (ema, "--ema judges", "a run", bool(runs)),
        (size_px is not None, "--size cuts", "a model of timm", bool(models)),
    ):
        if given and not there:
            raise ConfigError(
                f"{option} what belongs to {belongs}, and none is named. Leave it out, or name {belongs}."
            )
