"""The commands that make every number again."""

from collections.abc import Mapping, Sequence

from caev2.errors import CheckpointError
from caev2.pretrain.identity import RunIdentity, read_identity
from caev2.report.drawing.markup import Html, tag
from caev2.report.reading.commands import (
    Command,
    demo_command,
    extract_command,
    grid_command,
    pretrain_command,
)
from caev2.report.reading.files import Gap, without_folders
from caev2.report.reading.questions import result_command
from caev2.report.reading.runs import RunFolder
from caev2.report.reading.stores import StoreFolder
from caev2.report.reading.studies import Grid
from caev2.report.sections.section import Section, unfolding


def reproduce_section(runs: Sequence[RunFolder], stores: Mapping[str, StoreFolder], grids: Sequence[Grid]) -> Section:
    """The commands of every run and grid.

    Args:
        runs: In the order of the page.
        stores: By the name of the run.
        grids: Of studies.
    """
    body: list[Html] = []
    for run in runs:
        body += [tag("h3", run.name)] if len(runs) + len(grids) > 1 else []
        body.append(_list(commands_of_run(run, stores[run.name])))
    for grid in grids:
        if grid.outcome is not None:
            body += [tag("h3", grid.name), _list([grid_command(grid.outcome)])]
            if parts := commands_of_grid(grid):
                body.append(unfolding("Its runs one by one", _list(parts)))
    return Section(
        id="reproduce",
        title="Reproduce",
        about="Every setting that is not a default stands in its line. Words in capitals are your folders and files. "
        "Settings that change the speed alone are not recorded, and not needed.",
        body=tuple(body),
        gaps=tuple(
            Gap(what=f"What {run.name} is cannot be read, so its command cannot be told.")
            for run in runs
            if run.identity is None
        ),
    )


def commands_of_run(run: RunFolder, store: StoreFolder) -> list[Command]:
    """From the store to the last result."""
    commands = [] if run.demo is None else [demo_command(run.demo)]
    if run.identity is not None:
        commands += _commands_of_identity(run.identity, store)
    return commands + [result_command(result, run.identity) for result in run.results]


def _commands_of_identity(identity: RunIdentity, store: StoreFolder) -> list[Command]:
    extract = [] if identity.imported or not identity.store_fingerprint else [extract_command(identity, store.manifest)]
    return [*extract, pretrain_command(identity)]


def commands_of_grid(grid: Grid) -> list[Command]:
    """The training of each run of a grid that lies at hand; of runs that seeds share, each."""
    assert grid.outcome is not None, "whoever asks has looked"
    commands = []
    for one in grid.outcome.runs:
        try:
            commands.append(pretrain_command(read_identity(grid.runs / one.fingerprint), without_folders(one.name)))
        except CheckpointError:  # not there, or damaged: provenance says so
            continue
    return commands


def _list(commands: Sequence[Command]) -> Html:
    items = [
        tag(
            "li",
            tag("p", without_folders(command.makes), class_="makes"),
            tag("pre", tag("code", without_folders(command.line)), tabindex=0),
            [tag("p", without_folders(note), class_="note") for note in command.notes],
        )
        for command in commands
    ]
    return tag("ol", items, class_="commands")
