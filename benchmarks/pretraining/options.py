"""What both benchmarks can be told."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import click

from caev2.pretrain.student.sizes import SIZES

from .setting import CPU_BATCH, GPU_BATCH, Setting


def shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of both."""
    options = (
        click.option("--sizes", default="tiny,small,base", show_default=True, help=f"Out of {', '.join(SIZES)}."),
        click.option("--device", default="cpu", show_default=True, help="Where it runs, as torch spells it."),
        click.option("--batch", "batches", multiple=True, help="Images of a step: 32, or tiny=32; may be repeated."),
        click.option("--rounds", type=int, help="How often everybody has a turn."),
        click.option("--steps", type=int, help="Timed steps of a turn."),
        click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="Of this engine's student."),
        click.option("--compile/--no-compile", "compiled", default=None, help="Whether its step is compiled."),
        click.option("--folder", type=click.Path(path_type=Path), help="Where files are made, kept and found again."),
        click.option("--quick", is_flag=True, help="One short round, to see that it works; writes no results."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def settings(
    sizes: str,
    device: str,
    batches: tuple[str, ...],
    precision: Literal["fp32", "bf16"] | None,
    compiled: bool | None,
) -> list[Setting]:
    """What is measured, size by size."""
    chosen = sizes.split(",")
    if unknown := set(chosen) - set(SIZES):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: choose out of {', '.join(SIZES)}.")
    given = dict(_batch(text) for text in batches)
    on_cpu = device == "cpu"
    return [
        Setting(
            size=size,
            batch=given.get(size) or given.get("") or (CPU_BATCH[size] if on_cpu else GPU_BATCH),
            device=device,
            precision=precision or ("fp32" if on_cpu else "bf16"),
            compiled=not on_cpu if compiled is None else compiled,
        )
        for size in chosen
    ]


def _batch(text: str) -> tuple[str, int]:
    size, _, number = text.rpartition("=")
    if not number.isdecimal() or int(number) < 1 or size not in ("", *SIZES):
        raise click.BadParameter(f"--batch {text}: give a number, or SIZE=NUMBER.")
    return size, int(number)


@contextmanager
def kept_or_not(folder: Path | None) -> Iterator[Path]:
    """The folder that was named, or one that is removed again."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.absolute()
        return
    with TemporaryDirectory() as temporary:
        yield Path(temporary)
