"""`caev2 pretrain` and `caev2 import`: stage two, and runs that were trained elsewhere."""

from pathlib import Path
from typing import Literal

import click

from caev2.commands.invocation import (
    IMAGES,
    LOCAL,
    STORE,
    bars,
    common_options,
    example,
    json_option,
    leave,
    pick_device,
    print_result,
    set_option,
)
from caev2.store.remote.paths import StorePath
from caev2.store.sources.at_url import ImagesUrl


@click.command(epilog=example("pretrain photographs.caev2 runs/base --images photographs --recipe base-300e"))
@click.argument("store", type=STORE)
@click.argument("run", type=LOCAL)
@click.option(
    "--images",
    type=IMAGES,
    default=None,
    help="What the store was extracted from; a store that keeps its crops needs none.",
)
@click.option("--recipe", default="base-300e", show_default=True, help="Built-in name, or a TOML file.")
@click.option("--resume", type=click.Choice(["auto", "never"]), default="auto", show_default=True)
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    default=None,
    help="Start a new run from the weights of a run, or of an official file.",
)
@click.option("--dry-run", is_flag=True, help="Print steps and parameters; write nothing.")
@set_option
@common_options
def pretrain(
    store: StorePath,
    run: Path,
    images: Path | ImagesUrl | None,
    recipe: str,
    resume: Literal["auto", "never"],
    init_from: Path | None,
    dry_run: bool,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Train a student against the targets in STORE, without loading a teacher; checkpoints and log go to RUN."""
    from caev2.pretrain.plan import plan
    from caev2.pretrain.recipes import RECIPES
    from caev2.pretrain.run import pretrain as stage
    from caev2.pretrain.signals import Interrupted
    from caev2.recipe import load, override
    from caev2.store.reader import Store

    chosen = override(load(recipe, RECIPES), settings)
    opened = Store(store)
    if dry_run:
        print_result(plan(chosen, opened, run), as_json, f"{run} would be")
        return
    try:
        result = stage(
            opened,
            run,
            chosen,
            images=images,
            device=pick_device(device),
            resume=resume,
            init_from=init_from,
            progress=bars(quiet),
        )
    except Interrupted as left:
        leave(click.get_current_context(), str(left), 128 + left.signal_number)
    print_result(result, as_json, f"Trained {run}")


@click.command("import", epilog=example("import cae_v2_base.pth runs/official"))
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("run", type=LOCAL)
@json_option
def import_checkpoint(file: Path, run: Path, as_json: bool) -> None:
    """Turn an official CAE v2 checkpoint, whole or encoder only, into a run that can be probed."""
    from caev2.pretrain.adopt import adopt_checkpoint

    print_result(adopt_checkpoint(file, run), as_json, f"Imported {file}")
