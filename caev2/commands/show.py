"""`caev2 show`: what a run sees in some images, as pictures."""

from pathlib import Path
from typing import Any

import click

from caev2.commands.invocation import IMAGES, LOCAL, bars, common_options, example, pick_device, print_result
from caev2.store.sources.at_url import ImagesUrl


class _PatchType(click.ParamType):
    """A patch, as ROW,COL."""

    name = "patch"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Its row and column."""
        if isinstance(value, tuple):
            return value
        row, _, column = str(value).partition(",")
        if not (row.strip().isdecimal() and column.strip().isdecimal()):
            self.fail(f"{value!r} is no patch; give its row and column, counted from 0, as in 3,5.", param, ctx)
        return int(row), int(column)


@click.command(epilog=example("show runs/base cat.jpg street.jpg --out pictures --neighbours photographs"))
@click.argument("run", type=LOCAL)
@click.argument("images", nargs=-1, required=True, type=LOCAL, metavar="IMAGE...")
@click.option("--out", type=LOCAL, required=True, help="A folder for the pictures.")
@click.option(
    "--patch", type=_PatchType(), metavar="ROW,COL", help="Compare all patches with this. Default: the middle."
)
@click.option("--neighbours", type=IMAGES, default=None, help="Images among which the nearest are looked for.")
@click.option("--count", type=click.IntRange(1, 20), default=5, show_default=True, help="Nearest images of each.")
@click.option("--teacher", default=None, help="Where the weights of the run's teacher are, if they are not found.")
@click.option("--ema", is_flag=True, help="The moving average of the run's weights (ema_decay).")
@common_options
def show(
    run: Path,
    images: tuple[Path, ...],
    out: Path,
    patch: tuple[int, int] | None,
    neighbours: Path | ImagesUrl | None,
    count: int,
    teacher: str | None,
    ema: bool,
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Draw what RUN sees in each IMAGE, a file: a line of each picture in --out.

    patches.png: principal components of patch latents as colours, teacher and student in one basis. attention.png:
    where the class token looks in the last block, mean and every head. similarity.png: how like one patch all others
    are. neighbours.png: with --neighbours, the nearest images of a folder by the class token.
    """
    from caev2.eval.pictures import run as stage

    settings = stage.ShowSettings(
        patch=patch, neighbours=neighbours, neighbour_count=count, teacher=teacher, averaged=ema
    )
    result = stage.show(run, images, out, settings, device=pick_device(device), progress=bars(quiet))
    print_result(result if as_json else stage.facts_of(result), as_json, f"Drew {run}")
