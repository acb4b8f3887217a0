"""`caev2 store convert` and `caev2 store merge`: the same rows in other files."""

from pathlib import Path
from typing import Literal

import click

from caev2.commands.invocation import LOCAL, STORE, bars, example, json_option, print_result, quiet_option
from caev2.store.remote.paths import StorePath


@click.command("convert", epilog=example("store convert photographs.caev2 photographs-tars --layout webdataset"))
@click.argument("store", type=STORE)
@click.argument("out", type=LOCAL)
@click.option(
    "--layout",
    type=click.Choice(["zarr", "webdataset"]),
    default=None,
    help="In which files rows lie: zarr shards, or tars that stock webdataset reads.",
)
@click.option("--codec", default=None, help="Encode float16 rows: int8, lloyd4, klt, pq.")
@click.option("--targets", default=None, metavar="NAME,...", help="Write only these targets. Default: all.")
@click.option(
    "--calibration",
    type=STORE,
    default=None,
    help="Use the codec's tables of this store, of the same teacher, instead of new ones.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another floor for the codec, as for extract: floor.relative_error=0.02; may be repeated.",
)
@click.option(
    "--any-quality",
    is_flag=True,
    help="No floor for the codec but those of --set: where what it loses is what you want to measure.",
)
@click.option("--lossless", type=click.Choice(["zstd"]), default=None, help="Write a compressed copy for keeping.")
@json_option
@quiet_option
def store_convert(
    store: StorePath,
    out: Path,
    layout: Literal["zarr", "webdataset"] | None,
    codec: str | None,
    targets: str | None,
    calibration: StorePath | None,
    settings: tuple[str, ...],
    any_quality: bool,
    lossless: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the rows of STORE anew to OUT; or bring back a cold copy."""
    from caev2.errors import ConfigError
    from caev2.recipe import override
    from caev2.store.codecs.quality import ANY_QUALITY
    from caev2.store.rewriting.cold import freeze, is_cold, thaw
    from caev2.store.rewriting.convert import Encoding, convert

    if lossless is not None and (layout, codec, targets) != (None, None, None):
        raise ConfigError("--lossless makes a copy for keeping, of the store as it is: convert first, then compress.")
    if lossless is not None:
        print_result(freeze(store, out, bars(quiet)), as_json, f"Compressed {store}")
    elif isinstance(store, Path) and is_cold(store):
        if (layout, codec, targets, calibration, settings, any_quality) != (None, None, None, None, (), False):
            raise ConfigError(
                f"{store} is a cold copy: bring the store back first, without other options, then convert."
            )
        print_result(thaw(store, out, bars(quiet)), as_json, f"Brought back {out}")
    else:
        floor = override(Encoding(), settings).floor
        result = convert(
            store,
            out,
            layout=layout,
            codec=codec,
            targets=None if targets is None else targets.split(","),
            calibration=calibration,
            floor=floor.over(ANY_QUALITY) if any_quality else floor,
            progress=bars(quiet),
        )
        print_result(result, as_json, f"Converted {store}")


@click.command("copy", epilog=example("store copy photographs.caev2 s3://bucket/photographs.caev2"))
@click.argument("store", type=STORE)
@click.argument("out", type=STORE)
@json_option
@quiet_option
def store_copy(store: StorePath, out: StorePath, as_json: bool, quiet: bool) -> None:
    """Copy a STORE to a URL, or from one; each file is compared with its digest."""
    from caev2.store.rewriting.copy import copy_store

    print_result(copy_store(store, out, bars(quiet)), as_json, f"Copied {store}")


@click.command("merge", epilog=example("store merge all.caev2 first.caev2 second.caev2"))
@click.argument("out", type=LOCAL)
@click.argument("stores", type=STORE, nargs=-1, required=True)
@json_option
@quiet_option
def store_merge(out: Path, stores: tuple[StorePath, ...], as_json: bool, quiet: bool) -> None:
    """Write one store OUT of the images of several STORES."""
    from caev2.store.rewriting.merge import merge

    print_result(merge(stores, out, bars(quiet)), as_json, f"Merged {len(stores)} stores")
