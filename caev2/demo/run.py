"""The whole pipeline on built-in data: scenes → extract → pretrain → evaluations → pictures and a table."""

import dataclasses
import importlib.util
import json
import time
from dataclasses import dataclass
from pathlib import Path

from caev2.demo.evaluations import (
    Line,
    judge_features,
    judge_masks,
    judge_tuned,
    lines_of,
    markdown_of,
    print_lines,
    say_order,
)
from caev2.demo.pictures import draw_pictures
from caev2.demo.scenes import write_scenes
from caev2.errors import ConfigError
from caev2.eval.entrants import RunEntry
from caev2.eval.result import Judged, ProbeResult
from caev2.eval.segmentation.run import SegmentationResult
from caev2.eval.subjects import open_run
from caev2.extract.recipes import DEMO as EXTRACT_RECIPE
from caev2.extract.run import extract
from caev2.extract.teachers.catalog import load_teacher
from caev2.pretrain.recipes import DEMO as PRETRAIN_RECIPE
from caev2.pretrain.run import pretrain
from caev2.pretrain.student.model import build
from caev2.progress import Progress, Silent
from caev2.store.disk import write_whole, writing

EXTRAS = ("skimage", "sklearn", "matplotlib")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSize:
    """How much of everything."""

    train_scenes: int
    val_scenes: int
    epochs: int
    batch_size: int
    masked_train_scenes: int
    masked_val_scenes: int
    tuned_train_scenes: int
    tuned_val_scenes: int
    tuned_epochs: int


FULL = DemoSize(
    train_scenes=6000,
    val_scenes=5000,
    epochs=11,
    batch_size=64,
    masked_train_scenes=1000,
    masked_val_scenes=500,
    tuned_train_scenes=1000,
    tuned_val_scenes=1000,
    tuned_epochs=5,
)
QUICK = DemoSize(
    train_scenes=200,
    val_scenes=100,
    epochs=2,
    batch_size=32,
    masked_train_scenes=48,
    masked_val_scenes=24,
    tuned_train_scenes=64,
    tuned_val_scenes=50,
    tuned_epochs=1,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What the demo found."""

    table: ProbeResult
    """Pixels, random start, student, teacher: what `caev2 probe` finds of a run, and the pixels."""
    masks: SegmentationResult
    """The same without the pixels: what `caev2 segment` finds."""
    tuned: tuple[Judged, ...]
    """The same three, trained on labels: what `caev2 finetune` finds."""
    lines: tuple[Line, ...]
    """All of it, by evaluation."""
    seconds: dict[str, float]
    """By stage."""
    pictures: tuple[Path, ...]
    seed: int
    quick: bool


def run_demo(
    out: Path, *, quick: bool = False, seed: int = 0, device: str = "cpu", progress: Progress | None = None
) -> DemoResult:
    """Extract, pre-train and probe on scenes; the same call goes on with what an earlier one left.

    Args:
        out: Folder for scenes, store, run, pictures and `result.json`.
        quick: Few scenes and steps.
        seed: Of scenes, weights, order and masks.
        device: Where to compute.
        progress: Who is told.

    Raises:
        ConfigError: A package of the extras is missing.
        StoreMismatch: `out` holds a demo of another size or seed.
    """
    require_extras()
    progress = progress or Silent()
    size, seconds = QUICK if quick else FULL, {}
    scenes, store, run = out / "scenes", out / "store", out / "run"
    with _timed(seconds, "scenes"):
        write_scenes(scenes, "train", size.train_scenes, seed, progress)
        write_scenes(scenes, "val", size.val_scenes, seed, progress)
    with _timed(seconds, "extract"):
        extract(scenes, store, EXTRACT_RECIPE, device=device, progress=progress)
    with _timed(seconds, "pretrain"):
        recipe = dataclasses.replace(PRETRAIN_RECIPE, epochs=size.epochs, batch_size=size.batch_size, seed=seed)
        pretrain(store, run, recipe, images=scenes, device=device, progress=progress)
    with _timed(seconds, "probe"):
        table = judge_features(run, scenes, seed, device, progress)
    with _timed(seconds, "segment"):
        sizes = {"train": size.masked_train_scenes, "val": size.masked_val_scenes}
        masks = judge_masks(run, out / "masked-scenes", sizes, seed, device, progress)
    with _timed(seconds, "finetune"):
        sizes = {"train": size.tuned_train_scenes, "val": size.tuned_val_scenes}
        tuned = judge_tuned(run, out / "few-scenes", sizes, size.tuned_epochs, seed, device, progress)
    lines = tuple(lines_of(table, masks, tuned))
    with _timed(seconds, "pictures"):
        entry = RunEntry.find(run)
        random_start = build(entry.identity.model, seed).to(device).eval()
        teacher = load_teacher("demo", device=device)
        pictures = draw_pictures(out, scenes, lines, teacher, open_run(run, device), random_start, device)
    result = DemoResult(
        table=table, masks=masks, tuned=tuned, lines=lines, seconds=seconds, pictures=pictures, seed=seed, quick=quick
    )
    content = json.dumps(dataclasses.asdict(result), indent=1, default=str) + "\n"
    with writing(out):
        write_whole(out / "result.json", content.encode(), scratch=out)
        write_whole(out / "table.md", markdown_of(lines, _title(result), _words(result)).encode(), scratch=out)
    return result


def _title(result: DemoResult) -> str:
    return (
        f"Accuracy % on {result.table.val_images:,} scenes (95 % interval; few-shot: ± one deviation of draws), "
        f"mIoU on {result.masks.val_images:,}; fine-tuned on {(QUICK if result.quick else FULL).tuned_train_scenes:,}"
    )


def _words(result: DemoResult) -> list[str]:
    """What is to be said of the order of the numbers."""
    if result.quick:
        return ["A quick demo shows that everything works; a student of so few steps has learnt nothing."]
    return say_order(result.lines)


def require_extras() -> None:
    """Refuse to begin without the packages that scenes and pictures come from.

    Raises:
        ConfigError: One is missing.
    """
    missing = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"The demo needs packages that are not installed ({', '.join(missing)}). "
            'Run: pip install "caev2[demo,plots]"'
        )


class _timed:  # noqa: N801 - reads as a verb where it is used
    """Note the seconds that a block takes under a name."""

    def __init__(self, seconds: dict[str, float], name: str):
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._name] = round(time.perf_counter() - self._begun, 1)


def print_demo(result: DemoResult) -> None:
    """The table, the time each stage took, and where the pictures are."""
    print_lines(result.lines, _title(result))
    for sentence in _words(result):
        print(sentence)
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    print(f"Time: {stages}; together {sum(result.seconds.values()):.0f} s")
    print(f"Table: {result.pictures[0].parent / 'table.md'}")
    for picture in result.pictures:
        print(f"Picture: {picture}")
