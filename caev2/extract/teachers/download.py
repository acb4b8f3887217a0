"""Weights at plain addresses, as OpenAI's are: fetched whole or not at all."""

import re
import shutil
import urllib.request
from pathlib import Path
from typing import Any

from caev2.errors import TeacherError
from caev2.extract.teachers.hashes import Digest

URL_CACHE = Path("~/.cache/clip").expanduser()
"""Where OpenAI's own package and open_clip keep such files."""
_SECONDS = 30.0  # without a byte, until a server counts as silent


def published_sha256(url: str) -> Digest | None:
    """The sha256 of a whole file, which OpenAI writes into its address, and open_clip its beginning into a name."""
    folder = url.rsplit("/", 2)[-2] if url.count("/") > 2 else ""
    if re.fullmatch(r"[0-9a-f]{64}", folder):
        return Digest("sha256", folder)
    found = re.search(r"-([0-9a-f]{8})\.\w+$", url) if "mlfoundations" in url else None
    return Digest("sha256", found[1]) if found else None


def download(url: str, folder: Path) -> Path:
    """Fetch a file; it appears under its name only when all of it has come.

    Raises:
        TeacherError: It ended early.
        OSError: The server cannot be reached, refuses, or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / url.rsplit("/", 1)[-1]
    part = path.with_name(path.name + ".incomplete")
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            _refuse_short(url, source, target.tell())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _refuse_short(url: str, source: Any, size: int) -> None:
    wanted = source.headers.get("Content-Length")
    if wanted is not None and int(wanted) != size:
        raise TeacherError(f"{url} ended after {size:,} of {int(wanted):,} bytes. Fetch it again.")
