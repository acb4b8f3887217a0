"""Every evaluation of the demo in one table: a line for each, a column for each of those who are judged."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caev2.demo.masked_scenes import write_masked_scenes
from caev2.demo.scenes import SCENE_PX, write_scenes
from caev2.eval.entrants import RunEntry, pixels
from caev2.eval.finetuning.outcome import KIND as FINETUNE
from caev2.eval.finetuning.recipes import DEMO as FINETUNE_RECIPE
from caev2.eval.finetuning.run import finetune_and_score
from caev2.eval.finetuning.starts import from_random_start_of, from_run, from_teacher_of
from caev2.eval.interval import Accuracy
from caev2.eval.probes.attentive import AttentiveSettings
from caev2.eval.probes.protocols import ProbeSettings
from caev2.eval.result import Judged, ProbeResult, save_result
from caev2.eval.run import probe
from caev2.eval.segmentation.run import SegmentationResult, segment
from caev2.eval.segmentation.training import SegmentationSettings
from caev2.progress import Progress
from caev2.terminal import print_table

_KINDS = ("knn", "linear", "few-shot", "attentive")  # the official probe reads every image 90 times
_ATTENTIVE = ProbeSettings(attentive=AttentiveSettings(epochs=10, warmup_epochs=1.0))
_SEGMENTATION = SegmentationSettings(epochs=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One evaluation of everybody."""

    name: str
    shares: Mapping[str, Accuracy]
    """By role, of whom it can judge: right answers, or the mean intersection over union, in 0 .. 1."""


def judge_features(run: Path, scenes: Path, seed: int, device: str, progress: Progress) -> ProbeResult:
    """Everybody whom `caev2 probe RUN` judges, and the pixels, by every kind of probe."""
    entry = RunEntry.find(run)
    table = probe(
        [pixels(SCENE_PX), entry.random_start(), entry.student(), entry.teacher()],
        scenes,
        kinds=_KINDS,
        resize_px=SCENE_PX,
        orientation=entry.orientation,
        seed=seed,
        settings=_ATTENTIVE,
        device=device,
        progress=progress,
        run=entry.facts(),
    )
    save_result(table, run)
    return table


def judge_masks(
    run: Path, masked: Path, sizes: Mapping[str, int], seed: int, device: str, progress: Progress
) -> SegmentationResult:
    """A linear head on patch tokens: which pixels are ground, a digit, a shape.

    Args:
        run: Whose student, start and teacher.
        masked: Gets the scenes and their masks.
        sizes: How many scenes of `train` and `val`.
        seed: Of scenes and heads.
        device: Where to compute.
        progress: Who is told.
    """
    write_masked_scenes(masked, "train", sizes["train"], seed, progress)
    write_masked_scenes(masked, "val", sizes["val"], seed, progress)
    entry = RunEntry.find(run)
    result = segment(
        [entry.random_start(), entry.student(), entry.teacher()],
        masked,
        settings=_SEGMENTATION,
        orientation=entry.orientation,
        seed=seed,
        device=device,
        progress=progress,
        run=entry.facts(),
    )
    save_result(result, run, "segmentation.json")
    return result


def judge_tuned(
    run: Path, few: Path, sizes: Mapping[str, int], epochs: int, seed: int, device: str, progress: Progress
) -> tuple[Judged, ...]:
    """The whole encoder trained on few labels: of the random start, the student, the teacher.

    Args:
        run: Whose student, start and teacher; gets `finetuned/`.
        few: Gets the scenes.
        sizes: How many scenes of `train` and `val`.
        epochs: How often each is trained on.
        seed: Of scenes, heads, order and augmentation.
        device: Where to compute.
        progress: Who is told.
    """
    write_scenes(few, "train", sizes["train"], seed, progress)
    write_scenes(few, "val", sizes["val"], seed, progress)
    entry = RunEntry.find(run)
    recipe = dataclasses.replace(FINETUNE_RECIPE, epochs=epochs, seed=seed)
    return tuple(
        finetune_and_score(
            start,
            few,
            run / "finetuned" / start.role.replace(" ", "-"),
            recipe,
            device=device,
            orientation=entry.orientation,
            progress=progress,
            run=entry.facts(),
        )
        for start in (from_random_start_of(entry), from_run(entry), from_teacher_of(entry))
    )


def lines_of(features: ProbeResult, masks: SegmentationResult, tuned: Sequence[Judged]) -> list[Line]:
    """The lines of the table."""
    kinds = dict.fromkeys(kind for one in features.subjects for kind in one.accuracy)
    lines = [
        Line(name=kind, shares={one.role: one.accuracy[kind] for one in features.subjects if kind in one.accuracy})
        for kind in kinds
    ]
    scores = {one.role: one.score.mean_iou for one in masks.subjects if one.score is not None}
    return [
        *lines,
        Line(name="masks (mIoU)", shares=scores),
        Line(name="fine-tuned", shares={one.role: one.accuracy[FINETUNE] for one in tuned}),
    ]


def print_lines(lines: Sequence[Line], title: str) -> None:
    """Print the table, in 80 columns."""
    who = roles_of(lines)
    rows = [(line.name, *(_say(line.shares.get(role)) for role in who)) for line in lines]
    print_table(title, ("", *who), rows)


def _say(share: Accuracy | None) -> str:
    return "" if share is None else f"{100 * share.value:.1f} ({100 * share.low:.0f}-{100 * share.high:.0f})"


def roles_of(lines: Sequence[Line]) -> list[str]:
    """Who is judged at all, in the order of the first line that has them."""
    return list(dict.fromkeys(role for line in lines for role in line.shares))


def markdown_of(lines: Sequence[Line], title: str, words: Sequence[str]) -> str:
    """The table as a page of Markdown, with some words below it."""
    who = roles_of(lines)
    rows = ["| | " + " | ".join(who) + " |", "|---" * (1 + len(who)) + "|"]
    rows += [f"| {line.name} | " + " | ".join(str(line.shares.get(role, "")) for role in who) + " |" for line in lines]
    return "\n".join([f"# {title}", "", *rows, "", *(f"{word}\n" for word in words)])


def say_order(lines: Sequence[Line]) -> list[str]:
    """A sentence for each line that is not as one expects: random start < student <= about the teacher."""
    sentences = []
    for line in lines:
        start, student, teacher = (line.shares.get(role) for role in ("random start", "student", "teacher"))
        if start and student and student.low <= start.high:
            sentences.append(f"{line.name}: the student ({student}) is not clearly above its random start ({start}).")
        if student and teacher and student.low > teacher.high:
            sentences.append(f"{line.name}: the student ({student}) is above its teacher ({teacher}).")
    return sentences or ["Every line is in the expected order: random start < student, student <= teacher."]
