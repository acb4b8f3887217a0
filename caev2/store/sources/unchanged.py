"""Files that hold many images must stay what they were when those were listed: else a place leads to another image."""

import os
import stat
from datetime import datetime
from pathlib import Path

from caev2.errors import SourceError
from caev2.store.sources.at_url import SourcePath
from caev2.store.sources.source import cannot_read

Stamp = tuple[int, int]
"""Size of a file, and when it was last written to, in ns."""


def stamp_of(path: SourcePath) -> Stamp | None:
    """The stamp of a local file; none of one at a URL, whose copies are told apart when they are fetched.

    Raises:
        SourceError: It is not there, or no file: of a pipe nothing is read, it may never end.
    """
    if not isinstance(path, Path):
        return None
    try:
        found = path.stat()
    except OSError as problem:
        raise cannot_read(path, problem) from None
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(f"{path} is no file but a folder, a pipe or the like. Give a file.")
    return found.st_size, found.st_mtime_ns


def refuse_change(path: SourcePath, wanted: Stamp | None, found: os.stat_result | None = None) -> None:
    """Check that a file is the one that was listed.

    Args:
        path: Of the file.
        wanted: Its stamp then; none: nothing to compare.
        found: What the system says of the open file; none: it is asked by the path.

    Raises:
        SourceError: It is another one, or not there any more.
    """
    if wanted is None:
        return
    now = stamp_of(path) if found is None else (found.st_size, found.st_mtime_ns)
    if now is not None and now != wanted:
        raise SourceError(
            f"{path} has changed since its images were listed: it has {_say(now)}, and had {_say(wanted)}. Run the "
            "same command again when nobody writes to it."
        )


def _say(stamp: Stamp) -> str:
    size, written_ns = stamp
    return f"{size} bytes of {datetime.fromtimestamp(written_ns / 1e9).isoformat(' ', 'milliseconds')}"
