"""What is looked at before the first run, so that it does not come as a surprise after hours."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from caev2.ablate.finding import steps_trained
from caev2.ablate.lessons import load_live_teacher
from caev2.ablate.one_run import Work
from caev2.ablate.plan import RUNS, PlannedRun, State
from caev2.errors import CheckpointError
from caev2.pretrain.telling.log import read_log
from caev2.store.reader import Store


def refuse_missing_teachers(works: Iterable[Work]) -> None:
    """Load each live teacher that runs will need, once.

    Raises:
        TeacherError: One is not found on this machine.
    """
    seen: set[tuple[Path, str]] = set()
    for work in works:
        run = work.planned
        if run.online is None or (work.store, run.recipe.target) in seen or steps_trained(work.folder) >= run.steps:
            continue
        load_live_teacher(run.recipe, Store(work.store), "cpu", work.teacher)
        seen.add((work.store, run.recipe.target))


def warn_of_missing_curves(
    runs: Mapping[str, PlannedRun], states: Mapping[str, State], out: Path, warn: Callable[[str], None]
) -> None:
    """Tell of runs that were trained for a grid without curves: what was not asked on the way is not known."""
    without = [
        word
        for word, run in runs.items()
        if run.curves and states[word].steps >= run.steps and not _was_judged(out / RUNS / word)
    ]
    if without:
        warn(
            f"Trained for a grid without curves, so curves of kNN go without them: {len(without)} runs, such as "
            f"{runs[without[0]].names[0]}. Accuracies are there. To have the curves too, delete of {out / RUNS} the "
            f"folders {', '.join(without)}, and run the same command again."
        )


def _was_judged(run: Path) -> bool:
    try:
        return any("knn_percent" in record for record in read_log(run))
    except CheckpointError:  # told where curves are drawn
        return True
