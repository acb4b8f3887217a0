"""Cold copies: every file of a store compressed by itself, for keeping, not for reading.

COPY/
  cold.json                what is there: path, size and xxh3-128 of every file before it was compressed
  files/<path>.zst         one zstd frame a file; shards and tars of float16 with their bytes regrouped first

A cold copy is no store: nothing reads rows from it. Thawed, it is the old store, byte for byte.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import xxhash

from caev2.errors import StoreCorrupt, StoreMismatch
from caev2.progress import Progress, Silent
from caev2.recipe import fingerprint
from caev2.store.disk import Scratch, entries, write_whole, writing
from caev2.store.hashing import hash_file
from caev2.store.layout import SCRATCH, files_of_unit
from caev2.store.learned import learned_files
from caev2.store.manifest import FILE_NAME
from caev2.store.reader import Store
from caev2.store.remote.paths import StorePath
from caev2.store.rewriting.copy import refuse_damaged
from caev2.store.seal import files_of_store

COLD = "cold.json"
FORMAT = 1
_LEVEL = 3
_SHUFFLED_BYTES = 2  # of a float16: high bytes, which repeat, and low bytes, which hardly do, are put together


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdResult:
    """What compressing, or bringing back, came to."""

    place: Path
    files: int
    bytes: int
    """Of the store."""
    cold_bytes: int
    """Of its cold copy."""


def freeze(store: StorePath, out: Path, progress: Progress | None = None) -> ColdResult:
    """Write a cold copy of a store; the same call goes on where one was interrupted.

    Raises:
        StoreIncomplete: The store is not sealed.
        StoreMismatch: Something else lies at `out`.
        StoreCorrupt: The store is damaged.
        OutputError: `out` cannot be written.
    """
    progress, opened = progress or Silent(), Store(store)
    names = _files_of(opened)
    identity = {"format": FORMAT, "root_digest": opened.manifest.root_digest}
    refuse_damaged(opened, progress)
    if entries(out) and _beginning_of(out) != identity:
        raise StoreMismatch(f"{out} holds something else than a cold copy of {store}. Give a path that does not exist.")
    with writing(out):
        scratch = Scratch(out / SCRATCH)
        try:
            if not (out / COLD).exists():
                write_whole(out / COLD, _encode({**identity, "files": None}), scratch.folder)
            files = _freeze_files(store, out, names, scratch.folder, progress)
            write_whole(out / COLD, _encode({**identity, "files": files}), scratch.folder)
        finally:
            scratch.close()
    return _result(out, out, files)


def _freeze_files(
    store: StorePath, out: Path, names: list[str], scratch: Path, progress: Progress
) -> dict[str, tuple[int, str]]:
    progress.start("compress", len(names))
    files = {}
    for name in names:
        try:
            data = (store / name).read_bytes()
        except OSError as problem:
            raise StoreCorrupt(
                f"{store / name} cannot be read: {problem.strerror or problem}. Run `caev2 store verify`."
            ) from None
        files[name] = len(data), xxhash.xxh3_128_hexdigest(data)
        if not _is_frozen(out, name, *files[name]):
            write_whole(_frozen_path(out, name), _compress(data), scratch)
        progress.advance(1)
    progress.finish()
    return files


def _is_frozen(cold: Path, name: str, size: int, digest: str) -> bool:
    """Whether a file is there already, as an earlier run left it, and sound."""
    if not _frozen_path(cold, name).exists():
        return False
    try:
        _thawed(cold, name, size, digest)
    except StoreCorrupt:
        return False
    return True


def thaw(cold: Path, out: Path, progress: Progress | None = None) -> ColdResult:
    """Bring back the store that a cold copy was made of.

    Raises:
        StoreMismatch: There is no cold copy, or something else lies at `out`.
        StoreCorrupt: The copy is damaged, or was not finished.
        OutputError: `out` cannot be written.
    """
    progress, files = progress or Silent(), _read_files(cold)
    others = {one.name for one in entries(out)} - {SCRATCH, *(Path(name).parts[0] for name in files)}
    if (out / FILE_NAME).exists() or others:
        raise StoreMismatch(f"{out} holds a store, or something else, already. Give a path that does not exist.")
    progress.start("decompress", len(files))
    with writing(out):
        scratch = Scratch(out / SCRATCH)
        try:
            for name in sorted(files, key=lambda name: name == FILE_NAME):  # the manifest comes last
                if not ((out / name).exists() and hash_file(out / name) == files[name][1]):
                    write_whole(out / name, _thawed(cold, name, *files[name]), scratch.folder)
                progress.advance(1)
        finally:
            scratch.close()
    progress.finish()
    return _result(out, cold, files)


def is_cold(path: Path) -> bool:
    """Whether a cold copy lies at a path."""
    return (path / COLD).is_file()


def _thawed(cold: Path, name: str, size: int, digest: str) -> bytes:
    path = _frozen_path(cold, name)
    try:
        data = _decompress(path.read_bytes())
    except (OSError, RuntimeError, ValueError) as problem:
        raise StoreCorrupt(f"{path} is damaged: {problem}. Restore it from another copy.") from None
    if len(data) != size or xxhash.xxh3_128_hexdigest(data) != digest:
        raise StoreCorrupt(f"{path} is damaged: it is not what {COLD} says. Restore it from another copy.")
    return data


def _files_of(store: Store) -> list[str]:
    manifest = store.manifest
    units = {name for block in range(manifest.blocks) for name in files_of_unit(manifest, block)}
    return sorted({*units, *files_of_store(manifest), *learned_files(store.path, manifest), FILE_NAME})


def _read_files(cold: Path) -> dict[str, tuple[int, str]]:
    content = _read_cold(cold)
    if content["files"] is None:
        raise StoreCorrupt(f"{cold} was not finished. Run the same `caev2 store convert --lossless zstd` again.")
    for name in content["files"]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise StoreCorrupt(
                f"{cold / COLD} names {name!r}, which lies outside of a store. It is not what was written."
            )
    return {name: (size, digest) for name, (size, digest) in content["files"].items()}


def _beginning_of(cold: Path) -> dict | None:
    if not is_cold(cold):
        return None
    content = _read_cold(cold)
    return {"format": content["format"], "root_digest": content["root_digest"]}


def _read_cold(cold: Path) -> dict:
    try:
        content = json.loads((cold / COLD).read_bytes())
        digest = content.pop("digest")
    except FileNotFoundError:
        raise StoreMismatch(f"There is no cold copy at {cold}: it has no {COLD}.") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise StoreCorrupt(f"{cold / COLD} is damaged. Restore it from another copy.") from None
    if digest != fingerprint(content):
        raise StoreCorrupt(f"{cold / COLD} was changed after it was written. Restore it from another copy.")
    if content["format"] != FORMAT:
        raise StoreMismatch(f"{cold} has format {content['format']}; this version of caev2 reads {FORMAT}.")
    return content


def _encode(content: dict) -> bytes:
    return json.dumps({**content, "digest": fingerprint(content)}, ensure_ascii=False).encode() + b"\n"


def _frozen_path(cold: Path, name: str) -> Path:
    return cold / "files" / f"{name}.zst"


def _compress(data: bytes) -> bytes:
    from numcodecs import Shuffle, Zstd

    regrouped = data if len(data) % _SHUFFLED_BYTES else Shuffle(_SHUFFLED_BYTES).encode(data)
    return bytes(Zstd(level=_LEVEL, checksum=True).encode(regrouped))


def _decompress(data: bytes) -> bytes:
    from numcodecs import Shuffle, Zstd

    regrouped = Zstd().decode(data)
    return bytes(regrouped if len(regrouped) % _SHUFFLED_BYTES else Shuffle(_SHUFFLED_BYTES).decode(regrouped))


def _result(place: Path, cold: Path, files: dict[str, tuple[int, str]]) -> ColdResult:
    return ColdResult(
        place=place,
        files=len(files),
        bytes=sum(size for size, _ in files.values()),
        cold_bytes=sum(_frozen_path(cold, name).stat().st_size for name in files),
    )
