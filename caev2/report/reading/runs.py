"""A run of pre-training as it lies on disk: what it is, its log, its results, its pictures."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caev2.errors import CheckpointError
from caev2.pretrain.identity import FILE_NAME, RunIdentity, read_identity
from caev2.pretrain.telling.log import read_log
from caev2.pretrain.weights.checkpoint import list_checkpoints
from caev2.report.reading.files import Gap, children, read_mapping
from caev2.report.reading.results import Result, read_results

TRAIN = "caev2 pretrain STORE RUN --images IMAGES"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """Everything that a report says of one run."""

    name: str
    """What it is called on the page; no path."""
    path: Path
    identity: RunIdentity | None
    records: tuple[dict[str, Any], ...]
    """Of the log."""
    results: tuple[Result, ...]
    pictures: tuple[Path, ...]
    store: Path | None
    """Where its store is, if that is known."""
    demo: dict[str, Any] | None
    """What `caev2 demo` says of the whole; none: the run is not a demo's."""
    gaps: tuple[Gap, ...]

    @property
    def latest_step(self) -> int:
        """How far it got, as its checkpoints and its log tell."""
        kept = [one.step for one in list_checkpoints(self.path / "checkpoints")]
        return max([*kept, *(record["step"] + 1 for record in self.steps)], default=0)

    @property
    def steps(self) -> tuple[dict[str, Any], ...]:
        """The records of steps; the others are judgements."""
        return tuple(record for record in self.records if "loss" in record)

    def gaps_of(self, section: str) -> tuple[Gap, ...]:
        """What a section lacks."""
        return tuple(gap for gap in self.gaps if gap.section == section)


def is_run(folder: Path) -> bool:
    """Whether a folder says that it is a run, be it rightly or not."""
    return (folder / FILE_NAME).exists()


def read_run(folder: Path, name: str, *, store: Path | None = None) -> RunFolder:
    """Read a run; what is missing or damaged becomes a gap.

    Args:
        folder: Of the run.
        name: What it is called on the page.
        store: Where its store is; none: looked for beside the run.
    """
    gaps: list[Gap] = []
    identity = _read_identity(folder, gaps)
    results, missing = read_results(folder, None if identity is None else identity.target.get("teacher"))
    demo = _read_demo(folder.parent) if folder.name == "run" else None
    beside = folder.parent / "store"
    places = [folder, folder / "pictures", *([folder.parent] if demo is not None else [])]
    return RunFolder(
        name=name,
        path=folder,
        identity=identity,
        records=_read_log(folder, gaps),
        results=tuple(results),
        pictures=tuple(path for place in places for path in children(place) if path.suffix.lower() == ".png"),
        store=store or (beside if (beside / "manifest.json").exists() else None),
        demo=demo,
        gaps=(*gaps, *missing),
    )


def _read_identity(folder: Path, gaps: list[Gap]) -> RunIdentity | None:
    try:
        return read_identity(folder)
    except CheckpointError:  # its message names folders
        gaps.append(
            Gap(
                what=f"{FILE_NAME} is damaged or was edited: its fingerprint does not hold. Bring it back from a copy.",
                command=TRAIN,
                section="run",
            )
        )
        return None


def _read_log(folder: Path, gaps: list[Gap]) -> tuple[dict[str, Any], ...]:
    try:
        records = tuple(read_log(folder))
    except (CheckpointError, OSError):
        damaged = "log.jsonl is damaged: a line is no record of a step. Remove that line."
        gaps.append(Gap(what=damaged, section="curves"))
        return ()
    if not records:
        empty = "There is no log.jsonl, or it is empty: no step was told."
        gaps.append(Gap(what=empty, command=TRAIN, section="curves"))
    return records


def _read_demo(folder: Path) -> dict[str, Any] | None:
    found = read_mapping(folder / "result.json")
    return found if isinstance(found, dict) and "lines" in found and "quick" in found else None


def checkpoint_fingerprint(path: Path) -> str | None:
    """The run that a checkpoint says it is of, by its header alone; none: it does not say."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return json.loads((file.metadata() or {}).get("caev2", "{}")).get("fingerprint")
    except (OSError, safetensors.SafetensorError, ValueError, AttributeError):
        return None
