"""`caev2 report`: one page of runs and ablations."""

import dataclasses
from pathlib import Path

import click

from caev2.commands.invocation import LOCAL, example, json_option
from caev2.store.disk import say_bytes


@click.command(epilog=example("report runs/base report.html --store photographs.caev2"))
@click.argument("runs", nargs=-1, required=True, type=LOCAL, metavar="RUN...")
@click.argument("out", type=LOCAL, metavar="OUT.html")
@click.option("--store", type=LOCAL, default=None, help="The store of the runs. Default: STORE beside a demo's run.")
@json_option
def report(runs: tuple[Path, ...], out: Path, store: Path | None, as_json: bool) -> None:
    """Write one HTML file: curves, probes, ablations, pictures, and where every number comes from.

    RUN is a run of `caev2 pretrain`, the folder of `caev2 demo --out`, or what `caev2 ablate` writes; several may be
    named. The page opens from disk, fetches nothing, and can be read on a phone and in print. What is missing is said
    in its place, with the command that makes it.
    """
    from caev2.errors import ConfigError
    from caev2.report.run import report as write_report
    from caev2.terminal import print_json

    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{out} is no name of a page. End it in .html: caev2 report RUN report.html.")
    result = write_report(runs, out, store=store)
    if as_json:
        print_json(dataclasses.asdict(result))
        return
    filled = [name for name, is_filled in result.sections.items() if is_filled]
    print(f"Wrote {result.path}, {say_bytes(result.bytes)}: {', '.join(filled)}")
    for what in result.missing:
        print(f"  missing: {what}")
