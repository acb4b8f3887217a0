"""What a run's folder says of it: how far it is trained, which questions about it were answered, and the numbers."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from caev2.ablate.grids import EVALUATIONS, LOGGED
from caev2.ablate.outcome import Score
from caev2.errors import CheckpointError
from caev2.eval.parts import open_splits
from caev2.eval.probes.protocols import ProbeSettings, settings_of
from caev2.eval.run import RESIZE_RATIO
from caev2.pretrain.telling.log import read_log
from caev2.pretrain.weights.checkpoint import latest_checkpoint
from caev2.store.disk import writing
from caev2.store.images import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """Which images judge every run of a study, and with which seed: all of them alike."""

    images: Place
    train_digest: str
    val_digest: str
    val_images: int
    classes: int
    seed: int = 0
    """Of the held-out tenth and the heads; the same for all runs, whose own seeds are others."""
    settings: ProbeSettings = field(default_factory=ProbeSettings)

    @classmethod
    def by(cls, images: Place) -> "Judging":
        """Judging by labelled images in two parts.

        Raises:
            SourceError: They have no such parts, or no classes.
        """
        train, val = open_splits(images)
        return cls(
            images=images,
            train_digest=train.digest(),
            val_digest=val.digest(),
            val_images=len(val),
            classes=len(val.classes),
        )

    def answers(self, kinds: Sequence[str], result: Mapping[str, Any], fingerprint: str, step: int) -> bool:
        """Whether a saved result says what these kinds of probes find of a run at its end."""
        wanted = json.loads(json.dumps(settings_of(tuple(kinds), self.settings)))
        run, said = result.get("run") or {}, result.get("settings") or {}
        return (
            (run.get("fingerprint"), run.get("step")) == (fingerprint, step)
            and (result.get("train_digest"), result.get("val_digest")) == (self.train_digest, self.val_digest)
            and result.get("seed") == self.seed
            and all(said.get(kind) == asked for kind, asked in wanted.items())
            and set(_columns(kinds)) <= set(_student(result).get("accuracy", {}))
            and _was_cropped_as_usual(_student(result))
        )


def steps_trained(run: Path) -> int:
    """How far a run came: the step of its last checkpoint."""
    checkpoint = latest_checkpoint(run / "checkpoints")
    return 0 if checkpoint is None else checkpoint.step


def find_result(run: Path, judging: Judging, kinds: Sequence[str], steps: int) -> Mapping[str, Any] | None:
    """A saved result of the run at its end that has all these kinds; none: it has to be asked."""
    fitting = (one for one in _results(run) if judging.answers(kinds, one, run.name, steps))
    return next(fitting, None)


def kinds_found(run: Path, judging: Judging, steps: int) -> tuple[str, ...]:
    """Kinds that were asked of the run at its end before, so that the next result has them as well."""
    return tuple(kind for kind in EVALUATIONS if find_result(run, judging, (kind,), steps) is not None)


def remove_results(run: Path, steps: int) -> None:
    """Remove what was found of a run at its end, where it is not at its end any more: its weights are gone.

    On a GPU the same run, trained again, has other last bits.

    Raises:
        OutputError: A file cannot be removed.
    """
    with writing(run):
        for path in (run / "result.json", *sorted((run / "results").glob("*.json"))):
            found = _read(path)
            if found is not None and (found.get("run") or {}).get("step") == steps:
                path.unlink()


def _results(run: Path) -> Iterator[Mapping[str, Any]]:
    """All that were saved, by their questions; a file that was damaged is not one of them."""
    for path in sorted((run / "results").glob("*.json")):
        found = _read(path)
        if found is not None:
            yield found


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def final_scores(run: Path, judging: Judging, kinds: Sequence[str], steps: int) -> dict[str, Score]:
    """Every number of a run that is trained and judged; nothing of one that is not."""
    result = find_result(run, judging, kinds, steps)
    return {} if result is None else scores_of(run, result, kinds)


def scores_of(run: Path, result: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, Score]:
    """Every number of a finished run: of the probes, and of the last epoch in its log."""
    student = _student(result)
    accuracy, draws = student["accuracy"], student.get("draws", {})
    scores = {name: _score(accuracy[name], draws=name in draws) for name in _columns(kinds)}
    return scores | {name: Score(value=value) for name, value in last_figures(run).items()}


def last_figures(run: Path) -> dict[str, float]:
    """Loss and cosines of a run's end: the mean over the logged steps of its last epoch.

    One step's figures are those of one batch. A kind of token that is not predicted has no cosine.
    """
    try:
        records = [one for one in read_log(run) if "loss" in one and one.get("applied", True)]
    except CheckpointError:  # training does not depend on the log, and what the probes say does not either
        return {}
    last = [one for one in records if one["epoch"] == records[-1]["epoch"]] if records else []
    figures = {name: [one[name] for one in last if _is_number(one.get(name))] for name in LOGGED}
    return {name: fmean(values) for name, values in figures.items() if values}


def images_per_s(run: Path) -> float | None:
    """At what rate a run was trained: the middle of what its log says."""
    try:
        rates = sorted(one["images_per_s"] for one in read_log(run) if _is_number(one.get("images_per_s")))
    except CheckpointError:
        return None
    return rates[len(rates) // 2] if rates else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _columns(kinds: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for kind in kinds for name in EVALUATIONS[kind])


def _student(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a result says of the run itself."""
    subjects = [
        one for one in result.get("subjects", ()) if one.get("role") == "student" and one.get("name") == "student"
    ]
    return subjects[0] if subjects else {}


def _was_cropped_as_usual(student: Mapping[str, Any]) -> bool:
    """Whether images were resized as runs of a grid have them; `caev2 probe --resize` asks something else."""
    crop_px = student.get("crop_px")
    return isinstance(crop_px, int) and student.get("resize_px") == round(crop_px * RESIZE_RATIO)


def _score(accuracy: Mapping[str, float], *, draws: bool) -> Score:
    """An accuracy with its interval over images; what few-shot probes give beside it is a spread of draws."""
    if draws:
        return Score(value=accuracy["value"])
    return Score(value=accuracy["value"], low=accuracy["low"], high=accuracy["high"])
