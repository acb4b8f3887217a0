"""How a command that trains is left when it is asked to."""

import contextlib
import sys
from collections.abc import Iterator

import click

from caev2.commands.invocation import leave
from caev2.commands.ranks import is_first


@contextlib.contextmanager
def leaving_with_a_checkpoint() -> Iterator[None]:
    """End the command with one paragraph and 128 plus the signal's number, once training has saved and left."""
    from caev2.pretrain.together.signals import Interrupted, leaving_early

    try:
        with leaving_early():
            yield
    except Interrupted as left:
        if not is_first():
            sys.exit(128 + left.signal_number)
        leave(click.get_current_context(), str(left), 128 + left.signal_number)
