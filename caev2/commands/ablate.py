"""`caev2 ablate`: grids of runs over the stores of a study."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from caev2.commands.invocation import (
    IMAGES,
    LOCAL,
    bars,
    common_options,
    example,
    leave,
    pick_device,
    set_option,
)
from caev2.store.sources.at_url import ImagesUrl

if TYPE_CHECKING:
    from caev2.ablate.engines.engine import Engine
    from caev2.ablate.grids import Grid
    from caev2.ablate.plan import Plan
    from caev2.ablate.running import AblationResult

SOME_FAILED = 1
"""Exit status where runs failed and all others are done."""
_ALL = "all"


@click.command(epilog=example("ablate caev2-study/study all ablations --quick --images caev2-study/scenes --jobs 2"))
@click.argument("words", nargs=-1, metavar="STUDY GRID... OUT")
@click.option("--list", "listed", is_flag=True, help="List the built-in grids: what each tests, and who claims it.")
@click.option("--quick", is_flag=True, help="The small form of built-in grids, for the study of `caev2 demo --study`.")
@click.option("--images", type=IMAGES, default=None, help="What the stores were extracted from.")
@click.option(
    "--probe-images",
    type=IMAGES,
    default=None,
    help="Labelled images, train and val, that judge every run. Default: --images.",
)
@click.option(
    "--teacher",
    default=None,
    metavar="NAME",
    help="Where the weights of live teachers lie, such as openclip:ViT-B-16@FILE. Default: where they are published.",
)
@click.option("--seeds", default=None, metavar="A,B", help="In the place of the grids' own: 0,1,2.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Runs side by side; on a CPU, each has its share of the cores, and bits depend on that.",
)
@click.option("--gpus", type=click.IntRange(1), default=None, metavar="N", help="Runs side by side, a GPU for each.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="On this machine, or on a Ray cluster; one is started here where none is running.",
)
@click.option("--ray-address", default="auto", show_default=True, help="Of the Ray cluster.")
@click.option("--dry-run", is_flag=True, help="Print runs, missing stores and cost; write nothing.")
@set_option
@common_options
@click.pass_context
def ablate(
    ctx: click.Context,
    words: tuple[str, ...],
    listed: bool,
    quick: bool,
    images: Path | ImagesUrl | None,
    probe_images: Path | ImagesUrl | None,
    teacher: str | None,
    seeds: str | None,
    jobs: int,
    gpus: int | None,
    engine: Literal["local", "ray"],
    ray_address: str,
    dry_run: bool,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Pre-train and probe every run of some grids on the stores of STUDY, but those that are done; tables go to OUT.

    STUDY is a folder of stores over the same images. GRID is a built-in name, a TOML file, or `all` for every built-in
    one. Runs that grids have in common are done once. Killed anywhere, the same command goes on. Exit status 1: some
    runs failed, and all others are done.
    """
    if listed:
        _list(quick, as_json)
        return
    if len(words) < 3:
        raise click.UsageError("Give STUDY, one GRID or more, and OUT; or --list for the built-in grids.", ctx)
    from caev2.ablate.finding import Judging
    from caev2.ablate.plan import make_plan
    from caev2.commands.ablation_results import print_result

    study, *names, out = words
    _refuse_grid_as_folder(out, quick, ctx)
    study, out = LOCAL.convert(study, None, ctx), LOCAL.convert(out, None, ctx)
    grids = _grids(names, quick, seeds)
    chosen = _engine(engine, device, jobs, gpus, ray_address)
    plan = make_plan(study, grids, images=images, device=chosen.device, overrides=_overrides(settings))
    judges = probe_images or images
    if dry_run:
        from caev2.commands.ablation_plan import print_plan

        judging = None if judges is None else Judging.by(judges)
        print_plan(plan, out, judging, device=chosen.device, at_once=gpus or jobs, gpus=gpus or 1, as_json=as_json)
        return
    if judges is None:
        raise click.UsageError("Nobody judges the runs. Give --probe-images, or --images with train and val.", ctx)
    plan.refuse_missing()
    progress = bars(quiet)
    result = _run(ctx, plan, out, Judging.by(judges), chosen, images, teacher, progress)
    print_result(result, out, progress, as_json)
    if result.failures:
        sys.exit(SOME_FAILED)


def _run(
    ctx: click.Context,
    plan: "Plan",
    out: Path,
    judging: Any,
    engine: "Engine",
    images: Path | ImagesUrl | None,
    teacher: str | None,
    progress: Any,
) -> "AblationResult":
    """Do it; asked to leave, end with one paragraph and 128 plus the signal's number."""
    from caev2.ablate.running import ablate as run_grids
    from caev2.pretrain.together.signals import Interrupted

    try:
        return run_grids(plan, out, judging, engine, images=images, teacher=teacher, progress=progress)
    except Interrupted as left:
        message = "interrupted; what was trained is saved. The same command goes on from there."
        leave(ctx, message, 128 + left.signal_number)


def _grids(names: Sequence[str], quick: bool, seeds: str | None) -> "list[Grid]":
    """What is named: files, built-in grids, or all of those."""
    import dataclasses

    from caev2.ablate.built_in import built_in_grids
    from caev2.ablate.grid_files import read_grid
    from caev2.recipe import choose

    known = built_in_grids(quick=quick)
    named = dict.fromkeys(one for name in names for one in (known if name == _ALL else (name,)))
    grids = [read_grid(Path(name)) if name.endswith(".toml") else choose(name, known, "grid") for name in named]
    if seeds is None:
        return grids
    return [dataclasses.replace(grid, seeds=_seeds(seeds)) for grid in grids]


def _refuse_grid_as_folder(out: str, quick: bool, ctx: click.Context) -> None:
    """The last word is OUT; one that is called like a grid and is not there yet was meant to be a grid."""
    from caev2.ablate.built_in import built_in_grids

    is_grid = out.endswith(".toml") or out == _ALL or out in built_in_grids(quick=quick)
    if is_grid and not Path(out).is_dir():
        raise click.UsageError(
            f"The last word is OUT, the folder for results, and {out!r} is a grid. Add a folder.", ctx
        )


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.UsageError(f"--seeds is {text!r}; give whole numbers, such as 0,1,2.") from None


def _overrides(settings: Sequence[str]) -> dict[str, Any]:
    """`--set key=value`, by dotted name."""
    from caev2.errors import ConfigError
    from caev2.recipe import parse_value

    found = {}
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not sign:
            raise ConfigError(f"--set {setting!r} has no value. Write it as key=value.")
        found[name.strip()] = parse_value(text)
    return found


def _engine(name: str, device: str | None, jobs: int, gpus: int | None, ray_address: str) -> "Engine":
    """Who does the work.

    Raises:
        ConfigError: Options contradict each other, or there are not so many GPUs.
    """
    import torch

    from caev2.ablate.engines.side_by_side import SideBySide
    from caev2.errors import ConfigError

    threads = max(1, torch.get_num_threads() // (gpus or jobs))
    if gpus is not None and (jobs > 1 or device is not None or name == "ray"):
        raise ConfigError("--gpus has a run on each GPU of this machine. Leave --jobs, --device and --engine ray away.")
    if name == "ray":
        from caev2.ablate.engines.cluster import RayTasks
        from caev2.cluster import device_of_tasks

        tasks_on = device_of_tasks(device, ray_address, or_start=True)
        return RayTasks(device=tasks_on, address=ray_address, threads=threads)
    if gpus is None:
        return SideBySide(devices=(pick_device(device),) * jobs, threads=threads)
    if gpus > torch.cuda.device_count():
        raise ConfigError(f"--gpus {gpus} was asked for, and there are {torch.cuda.device_count()}. Ask for fewer.")
    return SideBySide(devices=tuple(f"cuda:{number}" for number in range(gpus)), threads=threads)


def _list(quick: bool, as_json: bool) -> None:
    """The built-in grids."""
    from caev2.ablate.built_in import built_in_grids
    from caev2.terminal import print_facts, print_json

    facts = {}
    for name, grid in built_in_grids(quick=quick).items():
        axes = " x ".join(f"{axis.name} ({', '.join(value.name for value in axis.values)})" for axis in grid.axes)
        runs = f"{len(grid.variants)} variants x {len(grid.seeds)} seeds = {len(grid.variants) * len(grid.seeds)}"
        facts[name] = {"title": grid.title, "claim": grid.claim, "source": grid.source, "varies": axes, "runs": runs}
    if as_json:
        print_json(facts)
        return
    for name, about in facts.items():
        print_facts(name, about)
    click.echo("Grids share runs, such as the baseline: `all` is every one of them. --quick --list: their small forms.")
