"""The outcome of a comparison: one table, one file.

`RUN/result.json` is the latest comparison of a run. It replaces the one before it, so every comparison is also kept as
`RUN/results/<fingerprint>.json`, named after its question: which checkpoint, which images (digests of keys, labels and
classes), who was judged, how, with which seed. Only the same question asked again writes the same file again. Neither
file holds a host, a time, or a path but in the name of a teacher as it was typed and the reason why one is missing.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from caev2.eval.entrants import Role, RunFacts
from caev2.eval.interval import Accuracy
from caev2.recipe import fingerprint
from caev2.store.disk import write_whole, writing
from caev2.terminal import print_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What one subject's frozen features are worth; a line of the table."""

    role: Role
    name: str
    not_available: str | None = None
    """Why it was not judged; then nothing below is filled."""
    sha256: str | None = None
    """Identity of a teacher's weights."""
    accuracy: dict[str, Accuracy] = field(default_factory=dict)
    """By probe: share of right answers on `val`, with a 95 % Wilson interval; of few-shot probes, the mean of several
    draws with one standard deviation to both sides."""
    bootstrap: dict[str, Accuracy] = field(default_factory=dict)
    """By probe: the same share with the 95 % percentile interval over resampled images."""
    draws: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """By few-shot probe: the accuracy of each draw of labelled images."""
    per_class: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    """By probe: the share of right answers among the `val` images of each class, in the order of `classes`."""
    protocol: dict[str, Any] = field(default_factory=dict)
    """By probe: pooling and settings, as given, or as chosen on a held-out tenth of `train`."""
    effective_rank: dict[str, float] = field(default_factory=dict)
    """By pooling: in how many directions the features of `train` spread (`checks.effective_rank`)."""
    resize_px: int | None = None
    crop_px: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What subjects are worth on one data set."""

    subjects: tuple[Judged, ...]
    """In the order of the table."""
    classes: tuple[str, ...]
    train_images: int
    val_images: int
    train_digest: str
    """Of keys, labels and classes of the train images."""
    val_digest: str
    orientation: str
    """Whether the EXIF orientation was applied."""
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    """What was asked of the probes, by kind."""
    run: RunFacts | None = None
    """Which weights the student is."""

    def mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    def question(self) -> str:
        """One word that is equal for results that answer the same question."""
        content = self.mapping()
        content["subjects"] = [
            [one.role, one.name, one.sha256, one.resize_px, one.crop_px, sorted(one.protocol)] for one in self.subjects
        ]
        return fingerprint(content)


@runtime_checkable  # so that the tests may check it as a type
class Result(Protocol):
    """What a table says, and which question it answers."""

    def mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        ...

    def question(self) -> str:
        """One word that is equal for results that answer the same question."""
        ...


def save_result(result: Result, run: Path, name: str = "result.json") -> Path:
    """Write a result into the folder of the run it judges, each file whole or not at all; return `RUN/name`.

    Raises:
        OutputError: It cannot be written.
    """
    content = (json.dumps(result.mapping(), indent=1, ensure_ascii=False) + "\n").encode()
    latest = run / name
    with writing(run):
        write_whole(run / "results" / f"{result.question()}.json", content, scratch=run)
        write_whole(latest, content, scratch=run)
    return latest


def print_result(result: ProbeResult) -> None:
    """Print the table: a line for each subject, a column for each kind of probe; of many kinds, some at a time."""
    kinds = list(dict.fromkeys(kind for one in result.subjects for kind in one.accuracy))
    spreads = "; few-shot: ± one deviation of draws" if any(one.draws for one in result.subjects) else ""
    title = f"Accuracy % on {result.val_images:,} images, {len(result.classes)} classes (95 % interval{spreads})"
    for begin in range(0, max(1, len(kinds)), _KINDS_ABREAST):
        some = kinds[begin : begin + _KINDS_ABREAST]
        rows = [(_say_name(one, begin == 0), *(_say_share(one, kind) for kind in some)) for one in result.subjects]
        print_table("" if begin else title, ("features", *some), rows)


_KINDS_ABREAST = 3  # more leave no room for names on a terminal of 80 columns


def _say_name(one: Judged, with_reason: bool) -> str:
    if one.not_available is None:
        return one.name
    return f"{one.name}: not available" + (f" ({one.not_available})" if with_reason else "")


def _say_share(one: Judged, kind: str) -> str:
    return "" if one.not_available is not None else str(one.accuracy.get(kind, "no tokens"))
