"""`caev2 pretrain`: stage two."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from caev2.commands.invocation import (
    IMAGES,
    LOCAL,
    STORE,
    bars,
    common_options,
    example,
    pick_device,
    print_result,
    set_option,
)
from caev2.commands.leaving import leaving_with_a_checkpoint
from caev2.commands.online import Online, OnlineKind, online_options
from caev2.commands.ranks import gpus_option, is_first, leave_to_ranks
from caev2.store.sources.at_url import ImagesUrl

if TYPE_CHECKING:
    from caev2.eval.while_training import NearestNeighbours
    from caev2.pretrain.recipes import PretrainRecipe
    from caev2.progress import Progress
    from caev2.store.pixels.decode import Orientation
    from caev2.store.reader import Store

NOT_FINITE = 1
"""Exit status of a replay that is not finite again."""


@click.command(epilog=example("pretrain photographs.caev2 runs/base --images photographs --recipe base-300e"))
@click.argument("store", type=str, required=False)
@click.argument("run", type=LOCAL, required=False)
@click.option(
    "--images",
    type=IMAGES,
    default=None,
    help="What the store was extracted from; a store that keeps its crops needs none.",
)
@click.option("--recipe", default="base-300e", show_default=True, help="Built-in name, or a TOML file.")
@click.option(
    "--resume",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="Go on with the run that is there, or refuse it.",
)
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    default=None,
    help="Start a new run from the weights of a run, of an official file, or of an export.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print what it takes: steps, arithmetic, memory, disk, and hours by timing some steps; write nothing.",
)
@click.option(
    "--replay",
    type=click.Path(path_type=Path),
    default=None,
    help="Compute a step again that was not finite, from the file that a run left. Exit status 1: it is not finite.",
)
@click.option(
    "--knn",
    type=IMAGES,
    default=None,
    help="Labelled images, train and val: judge the student by nearest neighbours every `knn_epochs` epochs.",
)
@click.option("--wandb", metavar="PROJECT", default=None, help="Send figures to this project at Weights & Biases, too.")
@online_options
@gpus_option
@set_option
@common_options
@click.pass_context
def pretrain(
    ctx: click.Context,
    store: str | None,
    run: Path | None,
    images: Path | ImagesUrl | None,
    recipe: str,
    resume: Literal["auto", "never"],
    init_from: Path | None,
    dry_run: bool,
    replay: Path | None,
    knn: Path | ImagesUrl | None,
    wandb: str | None,
    online: OnlineKind | None,
    teacher: str | None,
    views: str | None,
    leave_out: Path | None,
    gpus: int | None,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Train a student against the targets in STORE, without loading a teacher; checkpoints and log go to RUN.

    With --online, targets are computed in every step, to compare with; --online fresh takes IMAGES RUN and no store.

    SIGTERM, Ctrl-C and SIGUSR1 save a checkpoint and leave with status 143, 130 and 138. A second Ctrl-C leaves at
    once, and what was trained since the last checkpoint is lost.
    """
    if replay is not None:
        _replay(ctx, replay, device, as_json)
        return
    if store is None or run is None:
        raise click.UsageError(f"Missing argument '{'STORE' if store is None else 'RUN'}'.", ctx)
    from caev2.pretrain.telling.loggers import refuse_missing_wandb

    taught = Online(kind=online, teacher=teacher, views=views, leave_out=leave_out)
    taught.refuse_strays(ctx, images, dry_run)
    refuse_missing_wandb(wandb)
    leave_to_ranks(ctx, None if dry_run else gpus, device)
    from caev2.pretrain.learning.heap import keep_freed_memory
    from caev2.pretrain.learning.lesson import store_lesson
    from caev2.pretrain.recipes import RECIPES
    from caev2.pretrain.run import teach
    from caev2.recipe import load, override
    from caev2.store.reader import Store

    with leaving_with_a_checkpoint():
        chosen = override(load(recipe, RECIPES), settings)
        if online is None:
            opened = Store(STORE.convert(store, None, ctx))
            if dry_run:
                _print_forecast(chosen, opened, run, pick_device(device), gpus or 1, as_json, bars(quiet))
                return
            make, orientation = (
                partial(store_lesson, opened, chosen, images=images),
                opened.manifest.spec.views.orientation,
            )
        else:
            make, orientation = taught.lesson(store, recipe, chosen, images)
        where, progress = pick_device(device), bars(quiet or not is_first())
        if where == "cpu":
            keep_freed_memory()
        result = teach(
            make,
            run,
            device=where,
            resume=resume,
            init_from=init_from,
            progress=progress,
            wandb=wandb,
            judge=None if knn is None or not is_first() else _judge(knn, orientation, where, progress),
        )
    if is_first():
        print_result(result, as_json, f"Trained {run}")


def _judge(
    images: "Path | ImagesUrl", orientation: "Orientation", device: str, progress: "Progress"
) -> "NearestNeighbours":
    from caev2.eval.while_training import NearestNeighbours
    from caev2.pretrain.supply.loading import cores

    # meanwhile nobody trains, so all cores are free; on a CPU the student's own threads use them
    workers = cores() if device.startswith("cuda") else 1
    return NearestNeighbours(images, device=device, orientation=orientation, workers=workers, progress=progress)


def _print_forecast(
    recipe: "PretrainRecipe", store: "Store", run: Path, device: str, devices: int, as_json: bool, progress: "Progress"
) -> None:
    from caev2.commands.forecast import as_numbers, as_words
    from caev2.pretrain.foresight.forecast import forecast

    found = forecast(recipe, store, run, device=device, devices=devices, progress=progress)
    print_result(as_numbers(found) if as_json else as_words(found), as_json, f"{run} would be")


def _replay(ctx: click.Context, file: Path, device: str | None, as_json: bool) -> None:
    """Show a kept step again, and leave with a status that says whether it is finite."""
    import dataclasses

    from caev2.pretrain.learning.replay import replay_step
    from caev2.pretrain.telling.log import finite_or_null

    _refuse_other_words(ctx, "replay", "device", "as_json", "quiet")
    replay = replay_step(file, pick_device(device))
    facts: dict[str, Any] = dataclasses.asdict(replay)
    if as_json:
        facts = {name: finite_or_null(fact) if isinstance(fact, dict) else fact for name, fact in facts.items()}
        facts = finite_or_null(facts)
    print_result(facts, as_json, f"Computed again {file}")
    if not replay.finite:
        ctx.exit(NOT_FINITE)


def _refuse_other_words(ctx: click.Context, *allowed: str) -> None:
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name or "")
        if parameter.name not in allowed and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"--replay takes everything from its file; leave {parameter.get_error_hint(ctx)} away.", ctx
            )
