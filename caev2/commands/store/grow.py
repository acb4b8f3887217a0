"""`caev2 store extend` and `caev2 store graft`: more views, more targets."""

from pathlib import Path

import click

from caev2.commands.invocation import (
    IMAGES,
    LOCAL,
    bars,
    common_options,
    example,
    json_option,
    pick_device,
    print_result,
    quiet_option,
)
from caev2.store.sources.at_url import ImagesUrl


@click.command("extend", epilog=example("store extend photographs.caev2 --images photographs --views 8"))
@click.argument("store", type=LOCAL)
@click.option("--images", type=IMAGES, required=True, help="What the store was extracted from.")
@click.option("--views", type=click.IntRange(1), required=True, help="How many views it is to have.")
@click.option("--weights", default=None, help="Name of the teacher, where its weights lie in a file.")
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Processes that decode and crop.")
@common_options
def store_extend(
    store: Path,
    images: Path | ImagesUrl,
    views: int,
    weights: str | None,
    workers: int,
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Give every image of a STORE more views; the rows that are there stay as they are."""
    from caev2.extract.extend import extend
    from caev2.extract.teachers.recorded import load_recorded_teacher
    from caev2.store.images import open_images

    where, names = pick_device(device), () if weights is None else (weights,)
    grown = extend(
        store,
        open_images(images),
        views,
        load=lambda recorded: load_recorded_teacher(recorded, where, names, precision=recorded["precision"]),
        workers=workers,
        device=where,
        progress=bars(quiet),
    )
    print_result(grown, as_json, f"Extended {store}")


@click.command("graft", epilog=example("store graft photographs.caev2 photographs-dino.caev2"))
@click.argument("store", type=LOCAL)
@click.argument("part", type=LOCAL)
@json_option
@quiet_option
def store_graft(store: Path, part: Path, as_json: bool, quiet: bool) -> None:
    """Add the targets, or the further views, of a PART over the same images to a STORE."""
    from caev2.store.rewriting.graft import graft

    print_result(graft(store, part, bars(quiet)), as_json, f"Grafted {part} onto {store}")
