"""The numbers of a grid against the run that they are of: its own result and its own log."""

import math
from collections.abc import Iterable, Mapping, Sequence

from caev2.ablate.finding import last_figures, scores_of
from caev2.ablate.grids import EVALUATIONS
from caev2.ablate.outcome import RunOutcome, Score
from caev2.ablate.stored import StoredTarget
from caev2.report.reading.chain import Check, chain_of, compared, result_links
from caev2.report.reading.results import KNN, Result
from caev2.report.reading.runs import RunFolder, is_run, read_run
from caev2.report.reading.shapes import WRONG
from caev2.report.reading.stores import StoreFolder
from caev2.report.reading.studies import Grid


def check_outcome(one: RunOutcome, run: RunFolder | None, val_images: int | None) -> tuple[Check, ...]:
    """Everything that a run's folder says of the numbers that a grid shows.

    Args:
        one: The numbers.
        run: Its folder; none: it is not there.
        val_images: How many images judged it.
    """
    if run is None:
        return (Check(mark="not at hand", words="its folder is not there"),)
    if run.identity is None:
        return (Check(mark="differs", words="its run.json does not hold its fingerprint"),)
    own = compared("its run.json has this fingerprint", one.fingerprint, run.identity.fingerprint())
    checkpoint = chain_of(run, StoreFolder(manifest=None))[0].checks
    of_results = (check for link in result_links(run) for check in link.checks)
    return (own, *_check_scores(one, run, val_images), *checkpoint, *of_results)


def _check_scores(one: RunOutcome, run: RunFolder, val_images: int | None) -> Iterable[Check]:
    """Each number against those that the run's results and its log give; equal ones are told together."""
    if not one.scores:
        return
    fitting = [
        result
        for result in run.results
        if result.kind == "probe"
        and result.facts.get("fingerprint") == one.fingerprint
        and val_images in (None, result.val_images)
    ]
    found = [*(_scores_of(run, result) for result in fitting), _scores_of_log(run)]
    agreeing = 0
    for metric, score in one.scores.items():
        those = [scores[metric] for scores in found if metric in scores]
        if not those:
            yield Check(mark="not at hand", words=f"{metric}: no result and no log of the run gives it")
        elif score in those or not math.isfinite(score.value):
            agreeing += 1
        else:
            words = f"{metric} is {score.value:g}, and {those[0].value:g} in the run’s own files"
            yield Check(mark="differs", words=words)
    if agreeing:
        yield Check(mark="agrees", words=f"{agreeing} numbers are those of its result and its log")


def _scores_of(run: RunFolder, result: Result) -> Mapping[str, Score]:
    student = next((entry.shares for entry in result.entries if entry.own == "student"), {})
    there = {"knn" if name == KNN else name for name in student}
    kinds = [kind for kind, columns in EVALUATIONS.items() if there.issuperset(columns)]
    try:
        return scores_of(run.path, result.content, kinds)
    except WRONG:
        return {}


def _scores_of_log(run: RunFolder) -> Mapping[str, Score]:
    try:
        return {name: Score(value=value) for name, value in last_figures(run.path).items()}
    except WRONG:
        return {}


def check_digest(target: StoredTarget, grids: Sequence[Grid]) -> Check:
    """The digest that was recorded of a store against those of the runs that learned from it."""
    recorded = set()
    for grid in grids:
        if grid.outcome is None or target not in grid.outcome.targets:
            continue
        for one in grid.outcome.runs:
            folder = grid.runs / one.fingerprint
            if (one.store, one.recipe.get("target")) == (target.store, target.target) and is_run(folder):
                identity = read_run(folder, one.fingerprint).identity
                recorded |= set() if identity is None else {identity.store_digest}
    if not recorded:
        return Check(mark="not at hand", words="no run that learned from it lies there")
    return Check(mark="agrees" if recorded == {target.digest} else "differs", words="root digest of the store")
