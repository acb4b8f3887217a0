"""`caev2 store verify`: is every byte what was written?"""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caev2.commands.invocation import (
    IMAGES,
    REFUSED,
    STORE,
    bars,
    device_option,
    example,
    json_option,
    pick_device,
    print_result,
    quiet_option,
)
from caev2.store.remote.paths import StorePath
from caev2.store.sources.at_url import ImagesUrl

if TYPE_CHECKING:
    from caev2.extract.recheck import Recheck
    from caev2.store.pixels.crops import Crops
    from caev2.store.reader import Store


@click.command("verify", epilog=example("store verify photographs.caev2 --images photographs"))
@click.argument("store", type=STORE)
@click.option("--images", type=IMAGES, default=None, help="Also compare the pixels of every view.")
@click.option("--teacher", "rows", type=click.IntRange(1), default=None, help="Also run the teacher again on N rows.")
@click.option("--weights", default=None, help="Name of the teacher, where its weights lie in a file.")
@json_option
@quiet_option
@device_option
def store_verify(
    store: StorePath,
    images: Path | ImagesUrl | None,
    rows: int | None,
    weights: str | None,
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Compare every file with its digest, every row with its checksum; exit 2 if anything differs."""
    from caev2.store.remote.paths import without_copies

    with without_copies(store) as afresh:
        _verify(afresh, images, rows, weights, as_json, quiet, device)


def _verify(
    store: StorePath,
    images: Path | ImagesUrl | None,
    rows: int | None,
    weights: str | None,
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    from caev2.extract.shown import sees_boxes
    from caev2.store.images import open_images
    from caev2.store.pixels.replay import ViewReplay, open_crops
    from caev2.store.reader import Store
    from caev2.store.verify import verify_images, verify_store

    opened = Store(store, allow_unsealed=True)
    source = None if images is None else open_images(images)
    crops = open_crops(opened, source, boxes=sees_boxes(opened.manifest.spec)) if rows is not None else None
    report = dataclasses.asdict(verify_store(opened, bars(quiet)))
    if source is not None and not report["problems"]:
        report["problems"] = verify_images(opened, ViewReplay(opened, source), bars(quiet))
    if crops is not None and rows is not None and not report["problems"]:
        again = _run_teacher_again(opened, crops, rows, weights, pick_device(device), quiet)
        report["problems"] = tuple(problem for one in again for problem in one.problems)
        for one in again:
            report[f"teacher again, {one.target}"] = dataclasses.asdict(one) if as_json else _say_again(one)
    report["state"] = opened.manifest.state
    problems = report["problems"]
    if not as_json:
        report["problems"] = len(problems)
    print_result(report, as_json, f"{store} is damaged" if problems else f"{store} is whole")
    for problem in problems:
        click.echo(f"  {problem}", err=True)
    if problems:
        sys.exit(REFUSED)


def _run_teacher_again(
    store: "Store", crops: "Crops", rows: int, weights: str | None, device: str, quiet: bool
) -> "list[Recheck]":
    """Each target beside what its teacher says now."""
    from caev2.extract.recheck import recheck
    from caev2.extract.teachers.recorded import load_recorded_teacher

    found = []
    for name, target in sorted(store.manifest.spec.targets.items()):
        teacher = load_recorded_teacher(target.teacher, device, () if weights is None else (weights,))
        found.append(recheck(store, crops, name, teacher, rows, device=device, progress=bars(quiet)))
    return found


def _say_again(again: "Recheck") -> str:
    return (
        f"{again.rows} rows; cosine of class tokens {again.class_cosine_mean:.5f}, at least "
        f"{again.class_cosine_min:.5f}; of patches {again.patch_cosine_mean:.5f}, at least {again.patch_cosine_min:.5f}"
    )
