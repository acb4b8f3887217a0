"""The commands that make every number again."""

from collections.abc import Callable, Mapping, Sequence

from caev2.ablate.outcome import GridOutcome, RunOutcome
from caev2.pretrain.identity import RunIdentity
from caev2.pretrain.weights.checkpoint import list_checkpoints
from caev2.report.drawing.markup import Html, tag
from caev2.report.reading.files import Gap
from caev2.report.reading.runs import RunFolder, is_run, read_run
from caev2.report.reading.stores import StoreFolder
from caev2.report.reading.studies import Grid
from caev2.report.reproducing.asking_again import result_command
from caev2.report.reproducing.commands import Command, demo_command
from caev2.report.reproducing.extracting import extract_command
from caev2.report.reproducing.grids import grid_command, is_of_grid, places_of, store_commands
from caev2.report.reproducing.training import epochs_between, pretrain_command
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
            body += [tag("h3", grid.called(grid.name)), _list([grid_command(grid.outcome)])]
            body.append(unfolding("Its stores and runs one by one", _list(commands_of_grid(grid, grid.outcome))))
    return Section(
        id="reproduce",
        title="Reproduce",
        about="Every setting that is not a default stands in its line. Words in capitals are your folders and files. "
        "Settings that change the speed alone are not recorded. One of them, how many threads a run had (--jobs, "
        "OMP_NUM_THREADS), decides last bits on a CPU: with another number accuracies are a little different.",
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
        commands += _commands_of_identity(run, run.identity, store)
    latest = _latest_step(run)
    for result in run.results:
        commands += _told(lambda result=result: result_command(result, run.identity, latest=latest), result.file)
    return commands


def _commands_of_identity(run: RunFolder, identity: RunIdentity, store: StoreFolder) -> list[Command]:
    commands = []
    if not identity.imported and identity.store_fingerprint:
        commands += _told(lambda: extract_command(identity, store.manifest), "the store")
    judged = epochs_between(run.records)
    return commands + _told(lambda: pretrain_command(identity, judged=judged), "the run")


def commands_of_grid(grid: Grid, outcome: GridOutcome) -> list[Command]:
    """Its stores, then of each run that lies at hand the training and the results that the table has numbers of."""
    there = {one.fingerprint: one for one in outcome.runs if is_run(grid.runs / one.fingerprint)}
    commands, digests = [], {}
    for one in there.values():
        run = read_run(grid.runs / one.fingerprint, one.name)
        if run.identity is None:  # damaged: provenance says so
            continue
        if one.store is not None:
            digests.setdefault(one.store, run.identity.store_digest)
        commands += _commands_of_member(run, run.identity, one, outcome)
    return store_commands(outcome, digests) + commands


def _commands_of_member(run: RunFolder, identity: RunIdentity, one: RunOutcome, outcome: GridOutcome) -> list[Command]:
    places, latest = places_of(outcome, one), _latest_step(run)
    judged = epochs_between(run.records)
    commands = _told(lambda: pretrain_command(identity, one.name, places=places, judged=judged), one.name)
    for result in run.results:
        if is_of_grid(result, one):
            commands += _told(
                lambda result=result: result_command(result, identity, latest=latest, places=places), result.file
            )
    return commands


def _latest_step(run: RunFolder) -> int | None:
    return max((one.step for one in list_checkpoints(run.path / "checkpoints")), default=None)


def _told(make: Callable[[], Command], what: str) -> list[Command]:
    """A command; where a file of another version lacks what it would say, that."""
    try:
        return [make()]
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        note = f"What was recorded is of another version ({type(problem).__name__}: {problem})."
        return [Command(makes=what, words=(), notes=(note,))]


def _list(commands: Sequence[Command]) -> Html:
    items = [
        tag(
            "li",
            tag("p", command.makes, class_="makes"),
            tag("pre", tag("code", command.line), tabindex=0) if command.words else None,
            [tag("p", note, class_="note") for note in command.notes],
        )
        for command in commands
    ]
    return tag("ol", items, class_="commands")
