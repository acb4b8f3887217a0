"""`caev2 demo`: the whole pipeline on built-in scenes."""

import dataclasses
from pathlib import Path

import click

from caev2.commands.invocation import bars, common_options, example, pick_device
from caev2.commands.leaving import leaving_with_a_checkpoint


@click.command(epilog=example("demo --quick"))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    show_default="caev2-demo; caev2-study with --study",
    help="Folder of the results.",
)
@click.option(
    "--study",
    is_flag=True,
    help="Make the built-in study instead: stores of the same scenes, for `caev2 ablate`.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Fewer scenes and steps: shows that everything works, not that the student learns.",
)
@click.option("--seed", default=0, show_default=True, help="Of scenes, weights, order and masks.")
@common_options
def demo(out: Path | None, study: bool, quick: bool, seed: int, as_json: bool, quiet: bool, device: str | None) -> None:
    """Extract, pre-train and probe on built-in scenes; ends with a table and pictures."""
    from caev2.demo.run import print_demo, run_demo
    from caev2.terminal import print_json

    if study:
        _make_study(out or Path("caev2-study"), quick, seed, as_json, quiet, device)
        return
    out = out or Path("caev2-demo")
    with leaving_with_a_checkpoint():
        result = run_demo(out, quick=quick, seed=seed, device=pick_device(device), progress=bars(quiet))
    if as_json:
        print_json(dataclasses.asdict(result))
    else:
        print_demo(result)


def _make_study(out: Path, quick: bool, seed: int, as_json: bool, quiet: bool, device: str | None) -> None:
    from caev2.demo.study import make_study, print_study
    from caev2.terminal import print_json

    result = make_study(out, quick=quick, seed=seed, device=pick_device(device), progress=bars(quiet))
    if as_json:
        print_json(dataclasses.asdict(result))
    else:
        print_study(result)
