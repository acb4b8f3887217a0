"""The command line: `caev2 COMMAND`."""

import click

from caev2 import __version__
from caev2.commands.ablate import ablate
from caev2.commands.demo import demo
from caev2.commands.export import export
from caev2.commands.extract import extract
from caev2.commands.finetune import finetune
from caev2.commands.importing import import_weights
from caev2.commands.invocation import Commands, example
from caev2.commands.lists import recipes, teachers
from caev2.commands.pretrain import pretrain
from caev2.commands.probe import probe
from caev2.commands.report import report
from caev2.commands.segment import segment
from caev2.commands.show import show
from caev2.commands.store.group import store
from caev2.store.files.open_files import allow_many


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=example("demo --quick"))
@click.version_option(__version__, prog_name="caev2")
def main() -> None:
    """CAE v2 pre-training on stored CLIP targets: extract once, train without CLIP, probe."""
    allow_many()


for command in (
    demo,
    extract,
    store,
    pretrain,
    probe,
    segment,
    finetune,
    show,
    report,
    export,
    ablate,
    import_weights,
    recipes,
    teachers,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
