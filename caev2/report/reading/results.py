"""What probes, segmentation and fine-tuning found: one shape for all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from caev2.errors import CheckpointError
from caev2.eval.finetuning.identity import FILE_NAME as TUNED_FILE
from caev2.eval.finetuning.identity import read_claim
from caev2.eval.interval import Accuracy
from caev2.report.reading import shapes
from caev2.report.reading.files import Gap, children, read_mapping, scrubbed, without_folders

Kind = Literal["probe", "segment", "finetune"]
Own = Literal["student", "random start", "teacher"]
KNN, MASKS, TUNED = "kNN", "masks (mIoU)", "fine-tuned"
"""What evaluations are called on the page, where that is not their key."""
_TUNED_KEY = "finetune"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of right answers, and what it is the mean of."""

    accuracy: Accuracy
    draws: tuple[float, ...] = ()
    """Of few-shot probes."""

    def is_above(self, other: "Share") -> bool:
        """Whether the intervals do not touch, and this is the higher one."""
        return self.accuracy.low > other.accuracy.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One who is judged."""

    role: str
    name: str
    own: Own | None
    """What it is to the run: the run itself, its own random start, or the teacher that it learned from. None: somebody
    else's, or the average of the run's weights."""
    place: str
    """Of a fine-tuning: its folder's name; else empty."""
    not_available: str | None
    shares: dict[str, Share]
    """By evaluation."""
    per_class: dict[str, tuple[float | None, ...]]
    """By evaluation: a share for each class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One file of results."""

    kind: Kind
    file: str
    """Its place below the run: `results/1a2b.json`."""
    content: dict[str, Any]
    """All of the file, for whoever wants to know how it was made."""
    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    train_images: int
    val_images: int
    facts: dict[str, Any] = field(default_factory=dict)
    """Of the run that was judged; empty: the file does not say."""
    claim: dict[str, Any] | None = field(default_factory=dict)
    """Of a fine-tuning: what its folder says it is; none: that file is damaged or was edited."""

    @property
    def evaluations(self) -> tuple[str, ...]:
        """In the order of the file."""
        return tuple(dict.fromkeys(name for entry in self.entries for name in entry.shares))


def read_results(run: Path, teacher: Mapping[str, Any] | None = None) -> tuple[list[Result], list[Gap]]:
    """All results of a run: the latest ones, then earlier ones, then fine-tunings.

    Args:
        run: Its folder.
        teacher: Whom the run learned from, for results that do not say.
    """
    results, gaps, known = [], [], []
    earlier = [f"results/{path.name}" for path in children(run / "results") if path.suffix == ".json"]
    for name in ("result.json", "segmentation.json", *earlier):
        content = read_mapping(run / name)
        if isinstance(content, Gap):
            gaps.append(_gap(f"{name}: {content.what}"))
        elif content is not None and content not in known:
            known.append(content)
            _add(content, name, results, gaps, teacher=teacher or {})
    for folder in children(run / "finetuned"):
        _add_tuned(folder, results, gaps, teacher or {})
    return results, gaps


def read_tuning(folder: Path) -> tuple[list[Result], list[Gap]]:
    """The result of one fine-tuning."""
    results: list[Result] = []
    gaps: list[Gap] = []
    _add_tuned(folder, results, gaps, {})
    return results, gaps


def _gap(what: str, command: str | None = None) -> Gap:
    return Gap(what=what, command=command, section="probes")


def _add_tuned(folder: Path, results: list[Result], gaps: list[Gap], teacher: Mapping[str, Any]) -> None:
    content, name = read_mapping(folder / "result.json"), f"finetuned/{folder.name}/result.json"
    if isinstance(content, dict):
        _add(content, name, results, gaps, claim=_read_claim(folder), teacher=teacher)
    elif isinstance(content, Gap):
        gaps.append(_gap(f"{name}: {content.what}"))
    elif (folder / TUNED_FILE).exists():
        command = "caev2 finetune RUN --train IMAGES --out TUNED"
        gaps.append(_gap(f"finetuned/{without_folders(folder.name)} has no result yet.", command))


def _read_claim(folder: Path) -> dict[str, Any] | None:
    """What the folder of a fine-tuning says it is, if its fingerprint holds; empty: it does not say."""
    if not (folder / TUNED_FILE).exists():
        return {}
    try:
        return scrubbed(read_claim(folder)[0])
    except (CheckpointError, *shapes.WRONG):
        return None


def _add(
    content: dict[str, Any],
    name: str,
    results: list[Result],
    gaps: list[Gap],
    *,
    teacher: Mapping[str, Any],
    claim: dict[str, Any] | None = None,
) -> None:
    try:
        results.append(result_of(content, name, claim, teacher=teacher))
    except shapes.WRONG as problem:
        gaps.append(_gap(f"{name} is not what caev2 writes ({type(problem).__name__}: {problem})."))


def result_of(
    content: dict[str, Any], file: str, claim: dict[str, Any] | None, *, teacher: Mapping[str, Any] | None = None
) -> Result:
    """A result from the content of its file; all that the page reads of it later is there, and is what it should be.

    Args:
        content: Of the file.
        file: Its place below the run.
        claim: Of a fine-tuning: what its folder says it is.
        teacher: Whom the run learned from, where the file does not say.

    Raises:
        LookupError, TypeError, ValueError, AttributeError, ArithmeticError: It is none.
    """
    settings = shapes.mapping(content, "settings")
    kind: Kind = "segment" if "head" in settings else "finetune" if _TUNED_KEY in settings else "probe"
    facts = shapes.mapping(content, "run")
    shapes.check_facts(facts)
    shapes.check_asked(kind, content)
    teacher = shapes.mapping(facts["target"], "teacher") if facts else teacher or {}
    place = Path(file).parent.name if kind == "finetune" else ""
    entries = tuple(_entry(kind, subject, teacher, place) for subject in content["subjects"])
    if kind == "finetune" and not entries:
        raise ValueError("nobody was judged")
    return Result(
        kind=kind,
        file=file,
        content=content,
        entries=entries,
        classes=_classes(content),
        train_images=shapes.whole(content, "train_images"),
        val_images=shapes.whole(content, "val_images"),
        facts=facts,
        claim=claim,
    )


def _classes(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Their names; of masks their numbers, which begin at 1 where 0 is ignored."""
    if not isinstance(content["classes"], int):
        return tuple(str(name) for name in content["classes"])
    first = int(content["ignore"] == 0)
    return tuple(str(number) for number in range(first, first + shapes.whole(content, "classes")))


def _entry(kind: Kind, subject: Mapping[str, Any], teacher: Mapping[str, Any], place: str) -> Entry:
    missing = subject.get("not_available")
    shares, per_class = (_segmented if kind == "segment" else _judged)(subject)
    return Entry(
        role=shapes.text(subject, "role"),
        name=shapes.text(subject, "name"),
        own=_own(subject, teacher),
        place=place,
        not_available=None if missing is None else str(missing),
        shares=shares,
        per_class=per_class,
    )


def _own(subject: Mapping[str, Any], teacher: Mapping[str, Any]) -> Own | None:
    """What somebody is to the run, by name: roles are shared with models and teachers of others."""
    if subject["role"] in ("student", "random start"):
        return subject["role"] if subject["name"] == subject["role"] else None
    if subject["role"] != "teacher" or not teacher:
        return None
    if subject.get("sha256") and teacher.get("sha256"):
        return "teacher" if subject["sha256"] == teacher["sha256"] else None
    own = without_folders(f"teacher {teacher.get('name', '')}".strip())
    return "teacher" if without_folders(subject["name"]) == own else None


Found = tuple[dict[str, Share], dict[str, tuple[float | None, ...]]]


def _judged(subject: Mapping[str, Any]) -> Found:
    draws = shapes.mapping(subject, "draws")
    shares = {_called(name): _share(found, name, draws.get(name, ())) for name, found in subject["accuracy"].items()}
    return shares, {_called(name): _shares(found, name) for name, found in subject["per_class"].items()}


def _segmented(subject: Mapping[str, Any]) -> Found:
    score = subject.get("score")
    if score is None:
        return {}, {}
    return {MASKS: _share(score["mean_iou"], MASKS, ())}, {MASKS: _shares(score["iou"], MASKS)}


def _called(name: str) -> str:
    return {"knn": KNN}.get(name, name.replace(_TUNED_KEY, TUNED))


def _share(found: Mapping[str, Any], name: str, draws: Sequence[float | int]) -> Share:
    return Share(accuracy=shapes.accuracy(found, name), draws=tuple(shapes.share(one, name) for one in draws))


def _shares(found: Sequence[float | int | None], name: str) -> tuple[float | None, ...]:
    return tuple(None if one is None else shapes.share(one, name) for one in found)
