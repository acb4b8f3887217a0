"""The commands below `caev2 store`, in the order of the work."""

import click

from caev2.commands.invocation import example
from caev2.commands.store.bench import store_bench
from caev2.commands.store.convert import store_convert, store_copy, store_merge
from caev2.commands.store.grow import store_extend, store_graft
from caev2.commands.store.info import store_info
from caev2.commands.store.show import store_show
from caev2.commands.store.verify import store_verify


@click.group(epilog=example("store info photographs.caev2"))
def store() -> None:
    """Look into a store, check it, let it grow, write it in other files."""


for command in (
    store_info,
    store_verify,
    store_show,
    store_extend,
    store_graft,
    store_merge,
    store_convert,
    store_copy,
    store_bench,
):
    store.add_command(command)
