"""`caev2 extract`: stage one."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caev2.commands.engines import pick_engine
from caev2.commands.invocation import (
    IMAGES,
    LOCAL,
    bars,
    common_options,
    example,
    list_failures,
    pick_device,
    print_result,
    set_option,
)
from caev2.commands.planning import print_plan
from caev2.store.sources.at_url import ImagesUrl

if TYPE_CHECKING:
    from caev2.store.pixels.kept import KeptViews


@click.command(epilog=example("extract photographs photographs.caev2 --recipe base-300e"))
@click.argument("images", type=IMAGES)
@click.argument("store", type=LOCAL)
@click.option("--recipe", default="base-300e", show_default=True, help="Built-in name, or a TOML file.")
@click.option("--teacher", default=None, help="Overrides the recipe's teacher.")
@click.option("--views", type=int, default=None, help="Views of each image.")
@click.option("--codec", default=None, help="How rows are stored: float16, int8, lloyd4, klt, pq, or auto.")
@click.option(
    "--layout",
    type=click.Choice(["zarr", "webdataset"]),
    default=None,
    help="In which files rows lie: zarr shards, or tars that stock webdataset reads.",
)
@click.option(
    "--crops",
    type=click.Choice(["none", "jpeg", "raw"]),
    default=None,
    help="Keep the crops in the store: training then needs no images.",
)
@click.option(
    "--calibration",
    type=LOCAL,
    default=None,
    help="Use the codec's tables of this store, of the same teacher, instead of new ones.",
)
@click.option(
    "--from-crops",
    is_flag=True,
    help="IMAGES is a store that keeps its crops: take views and pixels from there, for another teacher's targets.",
)
@click.option("--limit", type=int, default=None, help="At most so many images; which ones, --seed decides.")
@click.option("--classes", default=None, metavar="A,B", help="Only images of these classes.")
@click.option("--sample", type=float, default=None, metavar="SHARE", help="Only this share of the images: 0.1.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of --limit and --sample.")
@click.option("--gpus", default=None, metavar="N", help="Compute on N GPUs of this machine, or on `all`.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Compute on this machine, or on a Ray cluster that is running.",
)
@click.option("--ray-address", default="auto", show_default=True, help="Of the Ray cluster.")
@click.option("--part", default=None, metavar="I/N", help="Compute the I-th of N parts; the last one done seals.")
@click.option("--dry-run", is_flag=True, help="Print rows, bytes and hours, from a sample; write nothing.")
@set_option
@common_options
def extract(
    images: Path | ImagesUrl,
    store: Path,
    recipe: str,
    teacher: str | None,
    views: int | None,
    codec: str | None,
    layout: str | None,
    crops: str | None,
    calibration: Path | None,
    from_crops: bool,
    limit: int | None,
    classes: str | None,
    sample: float | None,
    seed: int,
    gpus: str | None,
    engine: str,
    ray_address: str,
    part: str | None,
    dry_run: bool,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Run a frozen teacher once over deterministic crops of IMAGES and keep its latents in STORE."""
    from caev2.extract.parts import parse_part
    from caev2.extract.recipes import RECIPES
    from caev2.extract.run import extract as run_extract
    from caev2.extract.shown import over_kept_views
    from caev2.recipe import load, override
    from caev2.store.images import open_images
    from caev2.store.sources.subset import Subset

    kept = _open_kept(images, from_crops)
    chosen = load(recipe, RECIPES)
    chosen = override(chosen if kept is None else over_kept_views(chosen, kept), settings)
    named = {"teacher": teacher, "view_count": views, "codec": codec, "layout": layout}
    chosen = dataclasses.replace(chosen, **{name: value for name, value in named.items() if value is not None})
    if crops is not None:
        chosen = dataclasses.replace(chosen, crops=None if crops == "none" else crops)
    names = None if classes is None else tuple(name for name in classes.split(",") if name)
    subset, progress, whole = (
        Subset(classes=names, share=sample, limit=limit, seed=seed),
        bars(quiet),
        open_images(images) if kept is None else kept,
    )
    source = subset.of(whole)
    if len(source) < len(whole):
        progress.say(f"extract: {len(source):,} of the {len(whole):,} images")
    chosen_part = None if part is None else parse_part(part)
    if dry_run:
        # a cluster is not asked for a plan: what is measured is this machine
        where = pick_device(device) if engine == "ray" else pick_engine(engine, device, gpus, ray_address).device
        print_plan(source, store, chosen, where, as_json, progress)
        return
    result = run_extract(
        source,
        store,
        chosen,
        calibration=calibration,
        engine=pick_engine(engine, device, gpus, ray_address),
        part=chosen_part,
        progress=progress,
    )
    facts = dataclasses.asdict(result)
    if not as_json:
        facts["failures"] = list_failures(result.failures)
    print_result(facts, as_json, f"Extracted {store}")


def _open_kept(images: Path | ImagesUrl, from_crops: bool) -> "KeptViews | None":
    """The store whose crops are the source, if that is asked for.

    Raises:
        ConfigError: It lies at a URL; or images were asked for, and a store was given.
    """
    from caev2.errors import ConfigError
    from caev2.store.layout import INDEX
    from caev2.store.manifest import FILE_NAME
    from caev2.store.pixels.kept import open_kept_views

    if not isinstance(images, Path):
        if from_crops:
            raise ConfigError(f"{images} is a URL. Bring the store here first: `caev2 store copy {images} FOLDER`.")
        return None
    if from_crops:
        return open_kept_views(images)
    if (images / FILE_NAME).is_file() and (images / INDEX).is_file():
        raise ConfigError(f"{images} is a store and no images. To extract from the crops that it keeps: --from-crops.")
    return None
