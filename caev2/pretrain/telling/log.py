"""The log of a run: one JSON object a line, for every so many steps."""

import json
import math
import os
from pathlib import Path
from typing import Any

from caev2.errors import CheckpointError
from caev2.store.disk import write_whole, writing

FILE_NAME = "log.jsonl"
_END_BYTES = 1 << 14
"""Where the last record lies; one takes some hundred bytes."""


def read_log(run: Path) -> list[dict[str, Any]]:
    """The records of a run, in order; a last line that was cut off is left out.

    Raises:
        CheckpointError: Another line is no record.
    """
    path = run / FILE_NAME
    lines = path.read_bytes().splitlines() if path.exists() else []
    records = []
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is not None:
            records.append(record)
        elif number < len(lines):
            raise CheckpointError(
                f"{path} is damaged: line {number} of {len(lines)} is no record of a step. Remove that line, or "
                "restore the file; the checkpoints do not depend on it."
            )
    return records


def last_step(run: Path) -> int | None:
    """The step of the last whole record of a log that may be written meanwhile; only its end is read."""
    try:
        with (run / FILE_NAME).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return None
    records = (record for line in reversed(lines) if (record := _parse(line)) is not None)
    return next((record["step"] for record in records), None)


def was_judged(run: Path, step: int) -> bool:
    """Whether the log has a line with what was said of the student after a step, apart from the step's own line."""
    return any(record["step"] == step and "loss" not in record for record in read_log(run))


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:  # no JSON, or no UTF-8
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


class Log:
    """Appends records to a run's log.

    Args:
        run: Folder of the run.
        from_step: Records of this step and later ones are dropped: they belong to work that was lost.
    """

    def __init__(self, run: Path, from_step: int):
        kept = [record for record in read_log(run) if record["step"] < from_step]
        self._path = run / FILE_NAME
        with writing(run):
            write_whole(self._path, b"".join(map(_line, kept)), scratch=run)
            # no buffer: what a full disk has refused would be tried again, and fail, when the file is closed
            self._file = self._path.open("ab", buffering=0)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record.

        Raises:
            OutputError: It cannot be written.
        """
        line = _line(record)
        with writing(self._path):
            while line:  # a disk that becomes full takes a part, and refuses the rest
                line = line[self._file.write(line) :]

    def flush(self) -> None:
        """Wait until all records are on disk, as before a checkpoint that goes on behind them.

        Raises:
            OutputError: They cannot be written.
        """
        with writing(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(finite_or_null(record), allow_nan=False).encode() + b"\n"


def finite_or_null(record: dict[str, Any]) -> dict[str, Any]:
    """The record with null for numbers that are not finite: JSON has no others."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }
