"""`caev2 import`: weights that were trained or written elsewhere become a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from caev2.commands.invocation import LOCAL, example, json_option, print_result

if TYPE_CHECKING:
    from caev2.pretrain.weights.adopt import AdoptResult


@click.command("import", epilog=example("import cae_v2_base.pth runs/official"))
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("run", type=LOCAL, required=False)
@click.option("--report", is_flag=True, help="List every key and what became of it; without RUN, write nothing.")
@click.option("--heads", type=int, default=None, help="Of the encoder, where neither file nor width tells them.")
@click.option("--regressor-heads", type=int, default=None, help="Of the regressor, likewise.")
@click.option(
    "--drop-relative-positions",
    is_flag=True,
    help="Leave out what a fine-tuned model learned of relative positions. Its features change.",
)
@json_option
@click.pass_context
def import_weights(
    ctx: click.Context,
    file: Path,
    run: Path | None,
    report: bool,
    heads: int | None,
    regressor_heads: int | None,
    drop_relative_positions: bool,
    as_json: bool,
) -> None:
    """Turn FILE into a RUN that can be probed, exported and started from; nothing in the file is ever run.

    FILE is an official CAE v2 checkpoint, whole, encoder only or fine-tuned, or what `caev2 export` wrote. What it does
    not hold starts fresh. The report is kept in RUN/import.json.
    """
    if run is None and not report:
        raise click.UsageError("Missing argument 'RUN'. Give it, or --report to look at the file alone.", ctx)
    from caev2.pretrain.weights.adopt import adopt_checkpoint

    result = adopt_checkpoint(
        file,
        run,
        heads=heads,
        regressor_heads=regressor_heads,
        drop_relative_positions=drop_relative_positions,
    )
    if as_json:
        print_result(result, as_json, "")
        return
    if report:
        _print_keys(result)
    print_result(_in_words(result), as_json, f"Imported {file}" if run else f"{file} would give")


def _in_words(result: "AdoptResult") -> dict[str, Any]:
    words: dict[str, Any] = {} if result.run is None else {"run": result.run}
    words |= {"layout": result.layout, "used": f"{len(result.used)} tensors", "ignored": "none", "missing": "none"}
    if result.ignored:
        words["ignored"] = f"{len(result.ignored)} tensors: " + "; ".join(dict.fromkeys(result.ignored.values()))
    if result.missing:
        parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in result.missing))
        words["missing"] = f"{len(result.missing)} tensors, which start fresh: all of {parts}"
    return words | {"beside the weights": ", ".join(result.beside) or "nothing"}


def _print_keys(result: "AdoptResult") -> None:
    """Every key of the file, and every tensor that it lacks: a line each."""
    fates = {key: f"fills {place}" for key, place in result.used.items()}
    fates |= {key: f"ignored: {reason}" for key, reason in result.ignored.items()}
    fates |= dict.fromkeys(result.beside, "is no tensor: ignored")
    fates |= {f"({name})": "missing: starts fresh" for name in result.missing}
    width = max(len(key) for key in fates)
    for key, fate in fates.items():
        click.echo(f"{key:<{width}}  {fate}")
