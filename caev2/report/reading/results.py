"""What probes, segmentation and fine-tuning found: one shape for all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from caev2.report.reading.files import Gap, children, read_mapping

Kind = Literal["probe", "segment", "finetune"]
KNN, MASKS, TUNED = "kNN", "masks (mIoU)", "fine-tuned"
"""What evaluations are called on the page, where that is not their key."""
_TUNED_KEY = "finetune"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of right answers, 0 to 1, with its interval."""

    value: float
    low: float
    high: float
    draws: tuple[float, ...] = ()
    """Of few-shot probes: what it is the mean of."""

    def percent(self) -> str:
        """In percent: `86.2 (85.2–87.1)`."""
        return f"{100 * self.value:.1f} ({100 * self.low:.1f}–{100 * self.high:.1f})"

    def is_above(self, other: "Share") -> bool:
        """Whether the intervals do not touch, and this is the higher one."""
        return self.low > other.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One who is judged."""

    role: str
    name: str
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
    claim: dict[str, Any] = field(default_factory=dict)
    """Of a fine-tuning: what its folder says it is."""

    @property
    def evaluations(self) -> tuple[str, ...]:
        """In the order of the file."""
        return tuple(dict.fromkeys(name for entry in self.entries for name in entry.shares))


def read_results(run: Path) -> tuple[list[Result], list[Gap]]:
    """All results of a run: the latest ones, then earlier ones, then fine-tunings."""
    results, gaps, known = [], [], []
    earlier = [f"results/{path.name}" for path in children(run / "results") if path.suffix == ".json"]
    for name in ("result.json", "segmentation.json", *earlier):
        content = read_mapping(run / name)
        if isinstance(content, Gap):
            gaps.append(Gap(what=f"{name}: {content.what}"))
        elif content is not None and content not in known:
            known.append(content)
            _add(content, name, results, gaps)
    for folder in children(run / "finetuned"):
        _add_tuned(folder, results, gaps)
    return results, gaps


def read_tuning(folder: Path) -> tuple[list[Result], list[Gap]]:
    """The result of one fine-tuning."""
    results: list[Result] = []
    gaps: list[Gap] = []
    _add_tuned(folder, results, gaps)
    return results, gaps


def _add_tuned(folder: Path, results: list[Result], gaps: list[Gap]) -> None:
    content, claim = read_mapping(folder / "result.json"), read_mapping(folder / "finetune.json")
    name = f"finetuned/{folder.name}/result.json"
    if isinstance(content, dict):
        _add(content, name, results, gaps, claim if isinstance(claim, dict) else {})
    elif isinstance(content, Gap):
        gaps.append(Gap(what=f"{name}: {content.what}"))
    elif claim is not None:
        gaps.append(
            Gap(
                what=f"finetuned/{folder.name} has no result yet.",
                command="caev2 finetune RUN --train IMAGES --out TUNED",
            )
        )


def _add(
    content: dict[str, Any], name: str, results: list[Result], gaps: list[Gap], claim: dict[str, Any] | None = None
) -> None:
    try:
        results.append(result_of(content, name, claim or {}))
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        gaps.append(Gap(what=f"{name} is not what caev2 writes ({type(problem).__name__}: {problem})."))


def result_of(content: dict[str, Any], file: str, claim: dict[str, Any]) -> Result:
    """A result from the content of its file.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is none.
    """
    settings = content["settings"]
    kind: Kind = "segment" if "head" in settings else "finetune" if _TUNED_KEY in settings else "probe"
    classes = content["classes"]
    names = [str(number) for number in range(classes)] if isinstance(classes, int) else [str(name) for name in classes]
    read = _segmented if kind == "segment" else _judged
    return Result(
        kind=kind,
        file=file,
        content=content,
        entries=tuple(read(subject) for subject in content["subjects"]),
        classes=tuple(names),
        train_images=int(content["train_images"]),
        val_images=int(content["val_images"]),
        facts=dict(content.get("run") or {}),
        claim=claim,
    )


def _judged(subject: Mapping[str, Any]) -> Entry:
    draws = subject.get("draws") or {}
    return Entry(
        role=str(subject["role"]),
        name=str(subject["name"]),
        not_available=subject.get("not_available"),
        shares={_called(name): _share(found, draws.get(name, ())) for name, found in subject["accuracy"].items()},
        per_class={_called(name): _shares(found) for name, found in subject["per_class"].items()},
    )


def _segmented(subject: Mapping[str, Any]) -> Entry:
    score = subject.get("score")
    return Entry(
        role=str(subject["role"]),
        name=str(subject["name"]),
        not_available=subject.get("not_available"),
        shares={} if score is None else {MASKS: _share(score["mean_iou"], ())},
        per_class={} if score is None else {MASKS: _shares(score["iou"])},
    )


def _called(name: str) -> str:
    return {"knn": KNN}.get(name, name.replace(_TUNED_KEY, TUNED))


def _share(found: Mapping[str, Any], draws: Sequence[float | int]) -> Share:
    value, low, high = (float(found[name]) for name in ("value", "low", "high"))
    return Share(value=value, low=low, high=high, draws=tuple(map(float, draws)))


def _shares(found: Sequence[float | int | None]) -> tuple[float | None, ...]:
    return tuple(None if one is None else float(one) for one in found)
