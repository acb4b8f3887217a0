"""JSON of others, read with care: damaged files are gaps, and folders of a machine do not get onto the page."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDERS = re.compile(r"(?:file://|(?<![\w.:/…-]))(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'\"<>|:;,()]+[/\\])+")
"""The folders of an absolute path; what follows is the name that may be shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """What is not there."""

    what: str
    """A sentence."""
    command: str | None = None
    """What makes it."""
    section: str = ""
    """Of what was read of a run: the id of the section that says it; `summary` and `provenance` both say `run`."""


def without_folders(text: str) -> str:
    """A text in which absolute paths have lost their folders."""
    return _FOLDERS.sub("…/", text)


def scrubbed(value: Any) -> Any:
    """A value of JSON with `without_folders` done to all its texts, keys included."""
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, list):
        return [scrubbed(one) for one in value]
    if isinstance(value, dict):
        return {without_folders(key): scrubbed(one) for key, one in value.items()}
    return value


def read_mapping(path: Path) -> dict[str, Any] | Gap | None:
    """The object in a JSON file; none: there is no such file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None
    except OSError as problem:
        return Gap(what=f"{path.name} cannot be read: {problem.strerror}.")
    except (ValueError, RecursionError):
        return Gap(what=f"{path.name} is damaged: it is no JSON.")
    if not isinstance(content, dict):
        return Gap(what=f"{path.name} is damaged: it holds no object.")
    return scrubbed(content)


def children(folder: Path) -> list[Path]:
    """What lies in a folder, by name; nothing if it is not there."""
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError:
        return []
