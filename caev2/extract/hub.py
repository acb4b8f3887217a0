"""Finds published weights in the cache of the hub, or fetches them.

Both downloads are open_clip's and Hugging Face's own, into their own caches; offline mode is theirs too. A
file that is in the cache is used without asking the network, so a store begun offline ends with the same
teacher.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # of httpx or requests, as its version has it
    LocalEntryNotFoundError,
)
from huggingface_hub.utils import logging as hub_logging
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.pretrained import download_pretrained_from_url

from caev2.errors import TeacherError


def fetch_weights(
    published: Mapping[str, Any], *, architecture: str, tag: str, cache: Path | None = None, scheme: str = "openclip"
) -> Path:
    """The file of a pretrained tag, from the cache or else from the network.

    Args:
        published: open_clip's entry for the tag (`open_clip.pretrained.get_pretrained_cfg`).
        architecture: The name of the architecture, for the message.
        tag: The name of the tag, for the message.
        cache: Another cache folder than the client's own.
        scheme: Of the teacher's name, for the message.

    Raises:
        TeacherError: It is neither cached nor reachable; the message says which file to fetch and how to name
            it.
    """
    try:
        if published.get("hf_hub"):
            return _from_hub(published["hf_hub"], cache)
        return Path(download_pretrained_from_url(published["url"], cache_dir=str(cache) if cache else None))
    except (OSError, RuntimeError, EntryNotFoundError, HTTPError) as problem:
        raise TeacherError(_how_to_fetch(published, scheme, architecture, tag, problem)) from problem


def _from_hub(entry: str, cache: Path | None) -> Path:
    """Look for every file that would do in the cache, then ask the hub for them in the same order."""
    repository, files = hub_files(entry)
    for file in files:
        if isinstance(cached := try_to_load_from_cache(repository, file, cache_dir=cache), str):
            return Path(cached)
    missing = None
    for file in files:
        try:
            with _quiet_client():
                return Path(hf_hub_download(repository, file, cache_dir=cache))
        except LocalEntryNotFoundError:
            raise  # the hub cannot be reached: asking for another file would only wait again
        except EntryNotFoundError as problem:  # the hub has no such file
            missing = problem
    assert missing is not None
    raise missing


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep the client from printing a page of retries before the one message that counts."""
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)


def hub_files(entry: str) -> tuple[str, list[str]]:
    """Repository and acceptable files of open_clip's `org/repository/` or `org/repository/file`."""
    repository, _, file = entry.rpartition("/")
    if not file:
        return repository, [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    if file.endswith((".bin", ".pth")):
        return repository, [file[:-4] + ".safetensors", file]
    return repository, [file]


def published_sha256(url: str) -> str | None:
    """The sha256 of a whole file, which OpenAI writes into its address."""
    digest = url.rsplit("/", 2)[-2] if url.count("/") > 2 else ""
    return digest if len(digest) == 64 and set(digest) <= set("0123456789abcdef") else None


def _how_to_fetch(published: Mapping[str, Any], scheme: str, architecture: str, tag: str, problem: Exception) -> str:
    url = published.get("url") or ""
    name = url.rsplit("/", 1)[-1]
    ways, sign = [], "." if scheme == "timm" else "/"
    if published.get("hf_hub"):
        repository, files = hub_files(published["hf_hub"])
        name = name or files[0]
        ways.append(f"{' or '.join(files)} from the repository {repository} of huggingface.co")
    if url:
        digest = published_sha256(url)
        ways.append(f"`wget -O {name} {url}`" + (f" (sha256 {digest})" if digest else ""))
    return (
        f"The weights of {scheme}:{architecture}{sign}{tag} are not in the cache and cannot be downloaded "
        f"({_reason(problem)}). On a machine with a network fetch {', or '.join(ways)}; then name the file: "
        f"--teacher {scheme}:{architecture}@/path/{name}"
    )


def _reason(problem: BaseException) -> str:
    """What went wrong at the bottom, in one line: the client's own summary does not name it."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return (str(problem).strip() or type(problem).__name__).splitlines()[0].rstrip(".")
