"""A command that runs as several processes, one for each GPU."""

import os
import sys

import click

from caev2.errors import ConfigError

GPUS = "--gpus"
gpus_option = click.option(
    GPUS,
    type=click.IntRange(1),
    default=None,
    help="Use so many GPUs of this machine, a process each. Under torchrun, leave it away.",
)


def leave_to_ranks(ctx: click.Context, gpus: int | None, device: str | None) -> None:
    """Let so many processes do what this one was told, and end with their status; go on here if there is to be one.

    Raises:
        ConfigError: There are fewer GPUs, or a single one was named.
        RankLost: One was ended from outside.
    """
    _end_with_the_launcher()
    if gpus is None or gpus == 1:
        return
    if "RANK" in os.environ:
        raise ConfigError(f"{GPUS} {gpus} was given to a process that torchrun started. Leave it away.")
    _refuse_missing(gpus, device)
    from caev2.pretrain.together.launcher import launch

    ctx.exit(launch(_without_option(sys.argv[1:]), gpus))


def _refuse_missing(gpus: int, device: str | None) -> None:
    import torch

    if device == "cpu":
        return
    if device not in (None, "cuda"):
        raise ConfigError(f"{GPUS} {gpus} takes the first {gpus} GPUs, and --device names {device}. Leave one away.")
    if torch.cuda.device_count() < gpus:
        raise ConfigError(
            f"{GPUS} {gpus} was asked for, and there are {torch.cuda.device_count()}. Ask for fewer, or for processes "
            "that share the cores with --device cpu."
        )


def _without_option(words: list[str]) -> list[str]:
    kept, rest = [], iter(words)
    for word in rest:
        if word == GPUS:
            next(rest, None)
        elif not word.startswith(f"{GPUS}="):
            kept.append(word)
    return kept


def is_first() -> bool:
    """Whether this process is the one that speaks."""
    return os.environ.get("RANK", "0") == "0"


def _end_with_the_launcher() -> None:
    if "CAEV2_LAUNCHER" in os.environ:
        from caev2.workers import end_with

        end_with(int(os.environ["CAEV2_LAUNCHER"]))
