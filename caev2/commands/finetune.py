"""`caev2 finetune`: the whole encoder trained on labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from caev2.commands.invocation import IMAGES, LOCAL, bars, common_options, example, pick_device, set_option
from caev2.commands.leaving import leaving_with_a_checkpoint
from caev2.commands.ranks import gpus_option, is_first, leave_to_ranks
from caev2.store.sources.at_url import ImagesUrl

if TYPE_CHECKING:
    from caev2.eval.entrants import RunEntry
    from caev2.eval.finetuning.starts import Start

From = Literal["student", "average", "random", "teacher"]


@click.command(epilog=example("finetune runs/base --train labelled-photographs --recipe base --out tuned/base"))
@click.argument("subject", required=False, type=LOCAL)
@click.option("--train", type=IMAGES, required=True, help="Images to train on; or a data set with train and val.")
@click.option("--val", type=IMAGES, default=None, help="Images to judge on. Default: the val of --train's data set.")
@click.option("--out", type=LOCAL, required=True, help="Folder for checkpoints, log and result.json.")
@click.option("--recipe", default="base", show_default=True, help="tiny, small, base, large, demo; or a TOML file.")
@click.option(
    "--from",
    "origin",
    type=click.Choice(["student", "average", "random", "teacher"]),
    default="student",
    show_default=True,
    help="Of a run: its student, the moving average of that, its random start, or the teacher of its store.",
)
@click.option("--random-init", metavar="RECIPE", default=None, help="An untrained student of this recipe, not SUBJECT.")
@click.option("--teacher", metavar="NAME", default=None, help="This teacher, not SUBJECT.")
@click.option(
    "--resume",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="Go on with what lies in --out, or refuse it.",
)
@gpus_option
@set_option
@common_options
@click.pass_context
def finetune(
    ctx: click.Context,
    subject: Path | None,
    train: Path | ImagesUrl,
    val: Path | ImagesUrl | None,
    out: Path,
    recipe: str,
    origin: From,
    random_init: str | None,
    teacher: str | None,
    resume: Literal["auto", "never"],
    gpus: int | None,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Train the whole encoder of SUBJECT and a new head on labelled images, and judge it on others after every epoch.

    SUBJECT is a run, or an official checkpoint. Reported is the last epoch. SIGTERM and Ctrl-C save a checkpoint, and
    the same command goes on. OUT/result.json has the shape of a probe's.
    """
    leave_to_ranks(ctx, gpus, device)
    from caev2.eval.finetuning import run as stage
    from caev2.eval.finetuning.outcome import say_best
    from caev2.eval.finetuning.recipes import RECIPES
    from caev2.eval.result import print_result
    from caev2.recipe import load, override
    from caev2.terminal import print_json

    with leaving_with_a_checkpoint():
        chosen = override(load(recipe, RECIPES), settings)
        start, entry = _choose(subject, origin, random_init, teacher, chosen.seed)
        result = stage.finetune(
            start,
            *stage.open_parts(train, val),
            out,
            chosen,
            device=pick_device(device),
            resume=resume,
            orientation=entry.orientation if entry else "exif",
            progress=bars(quiet or not is_first()),
            run=entry.facts() if entry else None,
        )
    if not is_first():
        return
    if as_json:
        print_json(result.mapping())
    else:
        print_result(result)
        print(f"{say_best(result)} The table is in {out / 'result.json'}")


def _choose(
    subject: Path | None, origin: From, random_init: str | None, teacher: str | None, seed: int
) -> "tuple[Start, RunEntry | None]":
    """Whose weights are trained, and the run that they are of, if they are of one."""
    from caev2.errors import ConfigError
    from caev2.eval.entrants import RunEntry
    from caev2.eval.file_entrants import FileEntry
    from caev2.eval.finetuning import starts

    if sum(one is not None for one in (subject, random_init, teacher)) != 1:
        raise ConfigError(
            "Name one start: `caev2 finetune RUN`, with a run's folder or an official file; or --random-init RECIPE; "
            "or --teacher NAME."
        )
    if origin != "student" and (subject is None or FileEntry.fits(subject) or not subject.is_dir()):
        raise ConfigError(f"--from {origin} is about a run, and no run is named. Leave it out, or name a run.")
    if random_init is not None:
        return starts.from_random_start(random_init, seed), None
    if teacher is not None:
        return starts.from_teacher(teacher), None
    assert subject is not None, "one of the three is given"
    if FileEntry.fits(subject) or not subject.is_dir():
        return starts.from_file(subject), None
    entry = RunEntry.find(subject)
    made = {
        "student": starts.from_run,
        "average": lambda run: starts.from_run(run, averaged=True),
        "random": starts.from_random_start_of,
        "teacher": starts.from_teacher_of,
    }
    return made[origin](entry), entry
