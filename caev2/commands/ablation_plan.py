"""What `caev2 ablate --dry-run` finds out, in words and as numbers."""

import dataclasses
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from caev2.ablate.cost import Cost, cost_of
from caev2.ablate.expansion import GridRun
from caev2.ablate.finding import Judging, steps_trained
from caev2.ablate.plan import RUNS, Plan, State, state_of
from caev2.ablate.replaced import refuse_other_forms
from caev2.commands.planning import say_hours
from caev2.terminal import print_json


def print_plan(
    plan: Plan, out: Path, judging: Judging | None, *, device: str, at_once: int, gpus: int, as_json: bool
) -> None:
    """Print runs, missing stores and cost; nothing is written.

    Args:
        plan: What is wanted.
        out: Where runs lie.
        judging: Which images judge them; none: not said yet, so none is judged.
        device: Where runs will be trained.
        at_once: How many, side by side.
        gpus: On how many GPUs, if it is more than one.
        as_json: Whether for machines.

    Raises:
        ConfigError: `out` has another form of a grid.
    """
    refuse_other_forms(plan.grids, out)
    states = {word: _state(plan, word, out, judging) for word in plan.runs}
    cost = cost_of(plan, states, out, device=device, at_once=at_once, gpus=gpus)
    lines, seen = {}, set()
    for grid, runs in plan.by_grid.items():
        lines[grid] = [_line(run, word, states, seen, plan.misfits) for run, word in runs]
    misfits = {name: str(problem) for name, problem in plan.misfits.items()}
    if as_json:
        print_json({"grids": lines, "missing": plan.missing, "misfits": misfits, "cost": dataclasses.asdict(cost)})
        return
    for grid in plan.grids:
        print(f"{grid.name}: {grid.title}" if grid.title else grid.name)
        for line in lines[grid.name]:
            print(f"  {line['name']}  {line['store']}  {_say_settings(line['settings'])}  {line['state']}")
    for command in dict.fromkeys(plan.missing.values()):
        names = ", ".join(name for name, other in plan.missing.items() if other == command)
        print(f"Missing: {names}. Make with: {command}")
    if plan.missing and not all(grid.quick for grid in plan.grids):
        print(f"Or link a store of these images that you have, with the views and targets asked for: {_link(plan)}")
    for problem in dict.fromkeys(problem.partition(": ")[2] for problem in misfits.values()):
        print(f"Does not fit: {problem}")
    print(_say_cost(cost, len(plan.runs), at_once))


def _link(plan: Plan) -> str:
    """What puts another store into the place of the first that is missing."""
    study, name = plan.study.path, next(iter(plan.missing))
    return f"{shlex.join(['mkdir', '-p', str(study)])} && ln -s /path/to/store {shlex.quote(str(study / name))}"


def _state(plan: Plan, word: str, out: Path, judging: Judging | None) -> State:
    run = plan.runs[word]
    if judging is not None:
        return state_of(run, out, judging)
    return State(steps=min(steps_trained(out / RUNS / word), run.steps), is_judged=False, total=run.steps)


def _line(
    run: GridRun, word: str | None, states: Mapping[str, State], seen: set[str], misfits: Collection[str]
) -> dict[str, Any]:
    """One run, and whether it is done, begun, to do, or that of a line above."""
    if word is None:
        state = "does not fit" if run.name in misfits else "store missing"
    elif states[word].is_done:
        state = "done"
    elif word in seen:
        state = "as above"
    else:
        state = f"at step {states[word].steps}" if states[word].steps else "to do"
    seen |= {word} if word else set()
    store = f"live teacher, views as {run.store}" if run.online else run.store
    return {"name": run.name, "store": store, "settings": dict(run.settings), "fingerprint": word, "state": state}


def _say_settings(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items()) or "as the recipe"


def _say_cost(cost: Cost, runs: int, at_once: int) -> str:
    words = f"{runs} different runs, {cost.runs} of them to do: {cost.steps:,} steps"
    more = f"; beside them at most {cost.without_store} runs whose store is missing" if cost.without_store else ""
    if cost.hours is None or not cost.runs:
        return words + more
    side = f", {at_once} side by side" if at_once > 1 else ""
    known = f"known from {cost.known_from}"
    if cost.known_from == "runs that are done":
        alike = f", taken to have been {at_once} side by side too" if at_once > 1 else ""
        known = f"at the rate of the runs that are done{alike}"
    hours = f"about {say_hours(cost.hours)} of training{side} ({known})"
    return f"{words}, {hours}; judging comes on top{more}"
