"""`caev2 store bench`: how fast rows are read, beside others."""

import dataclasses

import click

from caev2.commands.invocation import STORE, bars, example, json_option, quiet_option
from caev2.store.remote.paths import StorePath


@click.command("bench", epilog=example("store bench photographs.caev2"))
@click.argument("store", type=STORE)
@click.option("--target", default=None, help="Which target's rows. Default: the first.")
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="Random rows at a time.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Turns of each reader.")
@json_option
@quiet_option
def store_bench(store: StorePath, target: str | None, batch: int, rounds: int, as_json: bool, quiet: bool) -> None:
    """Read random rows of a STORE, beside a flat file of the same bytes and other zarr readers."""
    from caev2.store.bench import FLAT, bench_store
    from caev2.store.reader import Store
    from caev2.terminal import print_json, print_table

    opened = Store(store)
    target = opened.target(target or min(opened.manifest.spec.targets))
    report = bench_store(opened, target, batch=batch, rounds=rounds, progress=bars(quiet))
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    lines = [
        (
            name,
            f"{speed.median:,.0f}",
            f"{speed.least:,.0f} - {speed.most:,.0f}",
            f"{speed.median * report.row_bytes / 1e6:,.0f}",
            f"{speed.median / report.speed[FLAT].median:.3f}",
        )
        for name, speed in report.speed.items()
    ]
    title = f"{report.rows:,} rows of {report.row_bytes:,} bytes, read by {batch} at random; warm"
    print_table(title, ("reader", "rows/s", "least - most", "MB/s", "of the flat file"), lines)
    for name in report.missing:
        click.echo(f"Not installed: {name}.", err=True)
