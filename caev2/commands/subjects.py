"""Who is judged: what `caev2 probe` and `caev2 segment` are told, in words, as entrants."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from caev2.errors import ConfigError

if TYPE_CHECKING:
    from caev2.eval.entrants import Entrant, RunEntry
    from caev2.eval.result import Result, RunFacts
    from caev2.pretrain.together.ranks import Company
    from caev2.store.pixels.decode import Orientation

NAMES = "[RUN | FILE | timm:MODEL] IMAGES"
_TIMM = "timm:"

_OPTIONS = (
    click.option("--random-init", metavar="RECIPE", default=None, help="Also an untrained student of this recipe."),
    click.option("--teacher", default=None, help="Also this teacher; for a run, where the weights of its teacher are."),
    click.option("--only", is_flag=True, help="Without random starts and teachers of what is named."),
    click.option(
        "--size",
        "size_px",
        type=int,
        default=None,
        help="timm: side of the crops in pixels. Default: that of the model's published weights.",
    ),
)


def subject_options(command: Callable) -> Callable:
    """Who is judged beside those whom the arguments name: `random_init`, `teacher`, `only` and `size_px`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


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

    @property
    def orientation(self) -> "Orientation":
        """Whether the EXIF orientation is applied: as the run did."""
        return self.entry.orientation if self.entry else "exif"

    def facts(self, company: "Company") -> "RunFacts | None":
        """Which weights the run's student has, the same for all who share the work."""
        return company.together(self.entry.facts) if self.entry else None

    def print_outcome(
        self, result: "Result", file_name: str, print_table: Callable[[Any], None], as_json: bool
    ) -> None:
        """Print a result, and for a run where it was written."""
        from caev2.terminal import print_json

        if as_json:
            print_json(result.mapping())
            return
        print_table(result)
        if self.entry is not None and self.run is not None:
            print(f"{self.run} at step {self.entry.step:,}; the table is in {self.run / file_name}")


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
