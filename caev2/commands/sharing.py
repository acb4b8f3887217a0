"""Evaluation by several processes: who they are, where each computes, and which of them speaks."""

import contextlib
import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from caev2.commands.invocation import bars, pick_device
from caev2.commands.ranks import is_first, leave_to_ranks

if TYPE_CHECKING:
    from caev2.pretrain.together.ranks import Company
    from caev2.progress import Progress

_PATIENCE = datetime.timedelta(days=7)
"""The first fits heads while others wait, which may take hours; one that dies is noticed at once."""


@contextlib.contextmanager
def shared(
    ctx: click.Context, gpus: int | None, device: str | None, quiet: bool
) -> Iterator[tuple["Company", str, "Progress"]]:
    """Meet the other processes, if there are any: all of them, the device of this one, and whom it tells.

    Raises:
        ConfigError: There is no such device, or the others cannot be met.
        RankLost: Another one died.
    """
    leave_to_ranks(ctx, gpus, device)
    from caev2.pretrain.together.ranks import device_of, joined, ranks_of_environment, use_gpu

    ranks = ranks_of_environment()
    where = device_of(ranks, pick_device(device))
    use_gpu(ranks, where)
    with joined(ranks, where, _PATIENCE) as company:
        yield company, where, bars(quiet or not is_first())
