"""JSON of others, read with care: damaged files are gaps, and folders of a machine do not get onto the page."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAME = r"[^\s/\\'\"<>|:;,()]+"
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]{0,30})?://[^\s'\"<>]*")
"""All of an address, whoever and whatever it names: hosts are somebody's, and what follows may be a token."""
_ACCOUNT = re.compile(r"(?<!\w)(?!(?:timm|openclip|demo):)[^\s/:@'\"<>]{1,64}:[^\s/:@'\"<>]+@(?=\w)")
"""`name:token@` before a host; the names of models with a file look alike."""
_HOME = re.compile(
    rf"(?i:(?:(?<![A-Za-z])[A-Z]:)?(?<![/\\])[/\\]+(?:home|users)[/\\]+(?:{_NAME}(?: {_NAME}){{0,2}}(?=[/\\])|{_NAME})"
    rf"|[/\\]root(?![\w.-])|~(?:[a-z_][\w.-]*)?(?=[/\\]))(?:[/\\]+{_NAME}(?=[/\\]))*([/\\]*)"
)
"""Somebody's folder, wherever it stands, with the folders in it; the name of its owner may have spaces."""
_FOLDERS = re.compile(rf"(?<![\w./\\…-])(?:(?<![A-Za-z])[A-Za-z]:)?[/\\](?:{_NAME}[/\\]+)+")
"""The folders of any other absolute path; what follows is the name that may be shown."""
_MOST_ROUNDS = 100


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
    """A text in which absolute paths have lost their folders, addresses all but a file's name, and accounts all.

    What is left is looked at again until nothing changes: a path may be hidden in another one.
    """
    for _ in range(_MOST_ROUNDS):
        shown = _FOLDERS.sub("…/", _HOME.sub(_no_home, _ACCOUNT.sub("…@", _URL.sub(_last_name, text))))
        if shown == text:
            return text
        text = shown
    return "…"


def _no_home(place: re.Match[str]) -> str:
    return "…/" if place[1] else "…"


def _last_name(address: re.Match[str]) -> str:
    """What an address ends in, if it is a file's name."""
    _, _, place = address.group().partition("://")
    path = re.split(r"[?#]", place, maxsplit=1)[0]
    return "…/" + path.rpartition("/")[2] if "/" in path else "…"


def name_of_folder(folder: Path) -> str:
    """A folder's own name, but where it is somebody's home: then it is theirs."""
    whole = folder.resolve()
    is_home = whole.parent.name.lower() in ("home", "users") or whole in (Path.home(), Path("/root"))
    return "run" if is_home else whole.name


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
