"""The log of a run: one JSON object a line, for every so many steps."""

import json
from pathlib import Path
from typing import Any

FILE_NAME = "log.jsonl"


def read_log(run: Path) -> list[dict[str, Any]]:
    """The records of a run, in order; a last line that was cut off is left out."""
    path = run / FILE_NAME
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class Log:
    """Appends records to a run's log.

    Args:
        run: Folder of the run.
        from_step: Records of this step and later ones are dropped: they belong to work that was lost.
    """

    def __init__(self, run: Path, from_step: int):
        kept = [record for record in read_log(run) if record["step"] < from_step]
        path, fresh = run / FILE_NAME, run / f".{FILE_NAME}"
        fresh.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        fresh.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record and flush it."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
