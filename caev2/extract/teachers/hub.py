"""Finds published weights in the cache, or fetches them, and compares them with the digest that they were published by.

Weights at Hugging Face are fetched by its own client, into its own cache; offline mode, tokens and mirrors
(`HF_HUB_OFFLINE`, `HF_TOKEN`, `HF_ENDPOINT`) are the client's too. A file that is in the cache is used without asking
the network, so a store begun offline ends with the same teacher.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # of httpx or requests, as its version has it
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import logging as hub_logging
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from caev2.errors import TeacherError
from caev2.extract.teachers.download import URL_CACHE, download, published_sha256
from caev2.extract.teachers.hashes import Digest, digest_of_blob, verify


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Where the weights of a teacher are published."""

    name: str
    """The teacher's, with its tag."""
    repository: str | None = None
    """At Hugging Face."""
    files: tuple[str, ...] = ()
    """Of the repository: each will do, the first is best."""
    url: str | None = None
    """Of a file at a plain address."""
    licence: str | None = None
    """As the library knows it."""

    @property
    def where(self) -> str:
        """In words."""
        ways = [f"{' or '.join(self.files)} of {self.repository} at huggingface.co"] if self.repository else []
        return " or ".join([*ways, *([self.url] if self.url else [])]) or "nowhere that the library knows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Weights that lie in the cache."""

    path: Path
    digest: Digest | None
    """What the file was published by, where that is known."""
    downloaded: bool
    """Whether this call brought it."""


def fetch_weights(publication: Publication, *, cache: Path | None = None) -> Path:
    """The file of a pretrained tag, from the cache or else from the network.

    Either way it is compared with the digest that it was published by, where that is known.

    Args:
        publication: Where it is published.
        cache: Another cache folder than the client's own.

    Raises:
        TeacherError: It is neither cached nor reachable, or is not what was published; the message says which file to
            fetch and how to name it.
    """
    return fetch(publication, cache=cache).path


def fetch(publication: Publication, *, cache: Path | None = None) -> Fetched:
    """As `fetch_weights`, with the digest and whether the network was asked."""
    if found := find_cached(publication, cache=cache):
        _refuse_other_than_published(found)
        return found
    try:
        if publication.repository:
            path = _from_hub(publication, cache)
            found = Fetched(path=path, digest=digest_of_blob(path), downloaded=True)
        elif publication.url:
            path = download(publication.url, cache or URL_CACHE)
            found = Fetched(path=path, digest=published_sha256(publication.url), downloaded=True)
        else:
            raise TeacherError(f"{publication.name} is published {publication.where}. {_by_hand(publication)}")
    except (OSError, RuntimeError, EntryNotFoundError, HTTPError) as problem:
        raise TeacherError(
            f"The weights of {publication.name} are not in the cache and cannot be downloaded ({_reason(problem)}). "
            f"{_by_hand(publication)}"
        ) from problem
    _keep_only_what_was_published(found)
    return found


def _keep_only_what_was_published(found: Fetched) -> None:
    """A download that is something else is removed again, or the next call would take it out of the cache."""
    try:
        verify(found.path, found.digest)
    except TeacherError as problem:
        found.path.resolve().unlink(missing_ok=True)
        found.path.unlink(missing_ok=True)
        raise TeacherError(f"{problem} It was not kept: fetch it again, from another mirror if that goes on.") from None


def find_cached(publication: Publication, *, cache: Path | None = None) -> Fetched | None:
    """Look for every file that would do in the cache, without asking the network."""
    if publication.repository:
        for file in publication.files:
            cached = try_to_load_from_cache(publication.repository, file, cache_dir=cache)
            if isinstance(cached, str):
                return Fetched(path=Path(cached), digest=digest_of_blob(Path(cached)), downloaded=False)
    if publication.url:
        path = (cache or URL_CACHE) / publication.url.rsplit("/", 1)[-1]
        if path.is_file():
            return Fetched(path=path, digest=published_sha256(publication.url), downloaded=False)
    return None


def _refuse_other_than_published(found: Fetched) -> None:
    try:
        verify(found.path, found.digest)
    except TeacherError as problem:
        files = " ".join(str(path) for path in sorted({found.path, found.path.resolve()}))
        raise TeacherError(f"{problem} It lies in the cache: remove it (rm {files}) and fetch it again.") from None


def _from_hub(publication: Publication, cache: Path | None) -> Path:
    """Ask the hub for the files in the order of preference."""
    missing = None
    for file in publication.files:
        try:
            with _quiet_client():
                return Path(hf_hub_download(publication.repository or "", file, cache_dir=cache))
        except LocalEntryNotFoundError:
            raise  # the hub cannot be reached: asking for another file would only wait again
        except EntryNotFoundError as problem:  # the hub has no such file
            missing = problem
    assert missing is not None
    raise missing


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep the client from printing a page of retries before the one message that counts; its bar stays."""
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)


def hub_files(entry: str) -> tuple[str, tuple[str, ...]]:
    """Repository and acceptable files of open_clip's `org/repository/` or `org/repository/file`."""
    repository, _, file = entry.rpartition("/")
    if not file:
        return repository, (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
    if file.endswith((".bin", ".pth")):
        return repository, (file[:-4] + ".safetensors", file)
    return repository, (file,)


def _by_hand(publication: Publication) -> str:
    """How to go on without this network."""
    url = publication.url or ""
    file = url.rsplit("/", 1)[-1] or next(iter(publication.files), "FILE")
    ways = []
    if publication.repository:
        ways.append(f"{' or '.join(publication.files)} from the repository {publication.repository} of huggingface.co")
    if url:
        digest = published_sha256(url)
        ways.append(f"`wget -O {file} {url}`" + (f" (sha256 {digest.value})" if digest else ""))
    fetch_it = f"On a machine with a network fetch {', or '.join(ways)}; then name" if ways else "Name"
    return f"{fetch_it} the file: --teacher {publication.name}@/path/{file}"


def _reason(problem: BaseException) -> str:
    """What went wrong, in one line that a stranger understands."""
    if isinstance(problem, GatedRepoError):
        return "the repository asks for consent to its licence: accept it at huggingface.co and set HF_TOKEN"
    if isinstance(problem, RepositoryNotFoundError):
        return "the hub says that there is no such repository, or that it wants a token: set HF_TOKEN"
    while problem.__cause__ is not None:  # the client's own summary does not name it
        problem = problem.__cause__
    line = (str(problem).strip() or type(problem).__name__).splitlines()[0].rstrip(".")
    return re.sub(r"\s*\(Request ID: [^)]*\)", "", line)
