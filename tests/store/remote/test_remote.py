"""Stores at URLs: the same numbers, every file once, and a clear word when the server fails."""

import os
import threading
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from caev2.errors import ConfigError, OutputError, StoreCorrupt, StoreMismatch, StoreUnreachable
from caev2.store.layout import shard_path, unit_path
from caev2.store.reader import Store
from caev2.store.remote import fetching
from caev2.store.remote import paths as remote
from caev2.store.remote.cache import COPIES, Cache, CacheSettings
from caev2.store.remote.paths import RemotePath, open_remote
from caev2.store.remote.paths import store_path as store_path_of
from caev2.store.rewriting.copy import copy_store
from caev2.store.verify import verify_store
from tests.store.made_up import DAMAGED, IMAGES, VIEWS, write_store

KINDS = {
    "float16": {},
    "lloyd4 with crops": {"codec": "lloyd4", "crops": "jpeg"},
    "tars": {"codec": "int8", "crops": "raw", "layout": "webdataset"},
}
VALID = [image for image in range(IMAGES) if image != DAMAGED]


class Moody(LocalFileSystem):
    """Local files behind a server with moods: it counts what is fetched, and fails as often as it is told."""

    protocol = "moody"
    cachable = False
    fetched: ClassVar[list[str]] = []
    failing = 0
    problem: Exception = ConnectionResetError("the server went away")
    cuts = 0

    def _serve(self, path):
        if Moody.failing > 0:
            Moody.failing -= 1
            raise Moody.problem
        Moody.fetched.append(path)

    def get_file(self, rpath, lpath, **kwargs):
        self._serve(rpath)
        super().get_file(rpath, lpath, **kwargs)
        if Moody.cuts > 0:
            Moody.cuts -= 1
            os.truncate(lpath, Path(lpath).stat().st_size // 2)

    def cat_file(self, path, **kwargs):
        self._serve(path)
        return super().cat_file(path, **kwargs)


fsspec.register_implementation("moody", Moody, clobber=True)


@pytest.fixture(autouse=True)
def patient_server(monkeypatch):
    monkeypatch.setattr(fetching, "_WAITS_S", (0.0, 0.0, 0.0))
    Moody.fetched, Moody.failing, Moody.cuts = [], 0, 0
    Moody.problem = ConnectionResetError("the server went away")


@pytest.fixture
def settings(tmp_path) -> CacheSettings:
    return CacheSettings(folder=tmp_path / "cache", limit_bytes=10**9)


def url_of(path: Path) -> str:
    return f"moody://{path}"


def numbers(store: Store) -> dict[str, bytes]:
    found = {"keys": repr(store.keys).encode(), "labels": store.labels.tobytes()}
    for view in range(store.views):
        found[f"rows {view}"] = store.read_rows("projected", view, VALID).tobytes()
        for image in VALID if store.manifest.spec.crops else ():
            found[f"crop {view} {image}"] = store.read_crop(view, image)
        for image in VALID:
            found[f"view {view} {image}"] = repr(store.view(view, image)).encode()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_at_a_url_gives_the_numbers_of_the_local_one(tmp_path, images, latents, settings, kind):
    path = write_store(tmp_path / "store", images, latents, **KINDS[kind])
    assert numbers(Store(open_remote(url_of(path), settings))) == numbers(Store(path))


def test_a_file_is_fetched_once_by_however_many_readers(store_path, settings):
    first = numbers(Store(open_remote(url_of(store_path), settings)))
    fetched = [name for name in Moody.fetched if not name.endswith("manifest.json")]
    assert len(fetched) == len(set(fetched)) > 20
    Moody.fetched = []
    assert numbers(Store(open_remote(url_of(store_path), settings))) == first
    assert [Path(name).name for name in Moody.fetched] == ["manifest.json"]


def test_what_was_not_asked_for_is_not_fetched(store_path, settings):
    store = Store(open_remote(url_of(store_path), settings))
    store.read_rows("projected", 1, [0, 1])
    assert any(name.endswith(shard_path("projected", 1, 0)) for name in Moody.fetched)
    assert not any("/codes/c/0/" in name or name.endswith(shard_path("projected", 1, 1)) for name in Moody.fetched)


def test_a_passing_failure_passes(store_path, settings):
    store = Store(open_remote(url_of(store_path), settings))
    Moody.failing = 3
    wanted = Store(store_path).read_rows("projected", 0, VALID)
    assert np.array_equal(store.read_rows("projected", 0, VALID), wanted)


def test_a_file_that_arrives_cut_short_is_fetched_again(store_path, settings):
    store = Store(open_remote(url_of(store_path), settings))
    store.view_value("valid", 0, 0)  # the record of the unit, whose own digest is what it is compared with
    Moody.cuts = 2
    wanted = Store(store_path).read_rows("projected", 0, [0, 1])
    assert np.array_equal(store.read_rows("projected", 0, [0, 1]), wanted)
    assert Moody.cuts == 0


def test_a_server_that_stays_silent_is_named_and_nothing_is_kept(store_path, settings):
    store = Store(open_remote(url_of(store_path), settings))
    Moody.failing = 10**6
    with pytest.raises(StoreUnreachable, match=r"moody://.* could not be read, 4 times: the server went away"):
        store.read_rows("projected", 0, [0])
    assert [path.name for path in settings.folder.rglob("*") if path.is_file()] == ["manifest.json"]
    Moody.failing = 0
    store.read_rows("projected", 0, [0])


def test_refused_access_is_told_at_once(store_path, settings):
    Moody.failing, Moody.problem = 10, PermissionError("403")
    with pytest.raises(StoreUnreachable, match=r"may not be read: 403\. Look at the credentials"):
        Store(open_remote(url_of(store_path), settings))
    assert Moody.failing == 9


def test_a_damaged_file_at_the_url_is_never_returned_as_data(store_path, settings):
    shard = store_path / shard_path("projected", 0, 0)
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    store = Store(open_remote(url_of(store_path), settings))
    with pytest.raises(StoreCorrupt, match=r"codes/c/0/0/0/0 is not what was written: its xxh3-128 is"):
        store.read_rows("projected", 0, [0])


def test_a_damaged_copy_is_found_and_fetched_again_the_next_time(store_path, settings):
    wanted = numbers(Store(open_remote(url_of(store_path), settings)))
    (copy,) = settings.folder.rglob(shard_path("projected", 0, 0))
    data = bytearray(copy.read_bytes())
    data[5] ^= 1
    copy.write_bytes(data)
    with pytest.raises(StoreCorrupt, match="Its copy in the cache was removed"):
        Store(open_remote(url_of(store_path), settings)).read_rows("projected", 0, [0])
    assert numbers(Store(open_remote(url_of(store_path), settings))) == wanted


def test_a_store_that_changed_at_its_url_is_not_mixed_with_copies_of_the_old_one(
    tmp_path, store_path, images, latents, settings
):
    numbers(Store(open_remote(url_of(store_path), settings)))
    other = write_store(tmp_path / "other", images, latents + 1)
    store_path.rename(tmp_path / "old")
    other.rename(store_path)
    assert numbers(Store(open_remote(url_of(store_path), settings))) == numbers(Store(store_path))


def test_the_cache_keeps_to_its_limit(store_path, tmp_path):
    whole = sum(path.stat().st_size for path in store_path.rglob("*") if path.is_file())
    small = CacheSettings(folder=tmp_path / "small", limit_bytes=whole // 3)
    store, wanted = Store(open_remote(url_of(store_path), small)), Store(store_path)
    for _ in range(2):
        for view in range(VIEWS):
            for image in VALID:
                rows = store.read_rows("projected", view, [image])
                assert np.array_equal(rows, wanted.read_rows("projected", view, [image]))
                store.close()
                kept = sum(path.stat().st_size for path in small.folder.rglob("*") if path.is_file())
                assert kept <= small.limit_bytes


def test_what_was_used_longest_ago_makes_room(tmp_path):
    cache = Cache(CacheSettings(folder=tmp_path, limit_bytes=30), prefix="x")
    for number, name in enumerate(("one", "two", "three")):
        os.utime(cache.get(name, lambda part: part.write_bytes(bytes(10))), (number, number))
    os.utime(tmp_path / COPIES / "x/one", (9, 9))
    cache.get("four", lambda part: part.write_bytes(bytes(10)))
    assert {path.name for path in (tmp_path / COPIES / "x").iterdir()} == {"one", "three", "four"}


def test_of_several_that_want_one_file_one_fetches_it(tmp_path):
    settings, begun, fetched = CacheSettings(folder=tmp_path, limit_bytes=100), threading.Barrier(8), []

    def fetch(part: Path) -> None:
        fetched.append(part)
        part.write_bytes(b"whole")

    def want() -> None:
        begun.wait()
        assert Cache(settings, prefix="x").get("file", fetch).read_bytes() == b"whole"

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1
    assert [path.name for path in (tmp_path / COPIES / "x").iterdir()] == ["file"]


def test_what_was_fetched_ahead_is_read_without_the_server(tmp_path, images, latents, settings):
    path = write_store(tmp_path / "store", images, latents, "lloyd4", crops="jpeg")
    store, wanted = Store(open_remote(url_of(path), settings)), Store(path)
    assert store.valid_images.tolist() == VALID
    store.tables("projected")
    store.prefetch(["projected"], 1, np.asarray(VALID))
    remote._pool().shutdown(wait=True)
    remote._pool.cache_clear()
    assert not any("/codes/c/0/" in name or "thumbnail" in name for name in Moody.fetched)
    Moody.failing = 10**6
    assert np.array_equal(store.read_rows("projected", 1, VALID), wanted.read_rows("projected", 1, VALID))
    assert store.read_crop(1, 0) == wanted.read_crop(1, 0)


def test_a_failure_ahead_of_use_is_told_when_the_file_is_read(store_path, settings):
    store = Store(open_remote(url_of(store_path), settings))
    Moody.failing = 10**6
    store.prefetch(["projected"], 0, np.asarray([0]))
    remote._pool().shutdown(wait=True)
    remote._pool.cache_clear()
    with pytest.raises(StoreUnreachable):
        store.read_rows("projected", 0, [0])


def test_verify_finds_damage_at_a_url_and_a_whole_store_whole(store_path, settings):
    assert verify_store(Store(open_remote(url_of(store_path), settings))).problems == ()
    (store_path / unit_path(1)).unlink()
    fresh = CacheSettings(folder=settings.folder / "fresh", limit_bytes=10**9)
    problems = verify_store(Store(open_remote(url_of(store_path), fresh))).problems
    assert any("units/000001.json is missing" in problem for problem in problems)


def test_other_files_in_the_folder_of_the_cache_are_left_alone(store_path, tmp_path):
    diary = tmp_path / "mine" / "diary.txt"
    diary.parent.mkdir()
    diary.write_bytes(bytes(100_000))
    os.utime(diary, (0, 0))
    numbers(Store(open_remote(url_of(store_path), CacheSettings(folder=tmp_path / "mine", limit_bytes=2000))))
    assert diary.exists()


def test_a_store_that_is_replaced_while_it_is_read_is_refused(tmp_path, store_path, images, latents, settings):
    store = Store(open_remote(url_of(store_path), settings))
    store.read_rows("projected", 0, [0])
    other = write_store(tmp_path / "other", images, latents + 1)
    store_path.rename(tmp_path / "old")
    other.rename(store_path)
    with pytest.raises(StoreMismatch, match="is not the store that it was when it was opened"):
        store.read_rows("projected", 0, [IMAGES - 1])
    assert numbers(Store(open_remote(url_of(store_path), settings))) == numbers(Store(store_path))


def test_a_file_that_makes_room_at_once_disturbs_nobody(tmp_path):
    """The lock covers a fetch alone: whoever makes room later touches no part of another's."""
    cache, published = Cache(CacheSettings(folder=tmp_path, limit_bytes=5), prefix="x"), []
    make_room = cache._make_room

    def forget_then_begin_again(added):
        cache.forget("file")
        other = Cache(CacheSettings(folder=tmp_path, limit_bytes=10**6), prefix="x")
        published.append(other.get("file", lambda part: part.write_bytes(b"whole again")).read_bytes())
        make_room(added)

    cache._make_room = forget_then_begin_again
    assert cache.get("file", lambda part: part.write_bytes(b"whole")).read_bytes() == b"whole again"
    assert published == [b"whole again"]


@pytest.mark.parametrize(
    "name", ["manifest.json", "index.parquet", "units/000000.json", "targets/projected/codec/mean/zarr.json"]
)
def test_a_damaged_copy_of_any_file_does_not_stay(tmp_path, images, latents, settings, name):
    path = write_store(tmp_path / "store", images, latents, "int8")
    wanted = numbers(Store(open_remote(url_of(path), settings)))
    (copy,) = settings.folder.rglob(name)
    copy.write_bytes(copy.read_bytes()[:-7])
    try:
        assert numbers(Store(open_remote(url_of(path), settings))) == wanted
    except StoreCorrupt:
        assert numbers(Store(open_remote(url_of(path), settings))) == wanted


def test_a_cache_that_cannot_be_written_is_named(store_path, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="CAEV2_CACHE"):
        Store(open_remote(url_of(store_path), CacheSettings(folder=tmp_path / "file", limit_bytes=10**6)))


def test_a_url_of_no_store_or_of_no_kind_is_refused(tmp_path, settings):
    with pytest.raises(StoreMismatch, match=r"There is no store at moody://.*: it has no manifest\.json"):
        Store(open_remote(url_of(tmp_path / "nothing"), settings))
    for url in ("s3://", "moody:///"):
        with pytest.raises(ConfigError, match="names no place"):
            open_remote(url, settings)
    with pytest.raises(ConfigError, match=r"nonsense://x cannot be opened"):
        open_remote("nonsense://x", settings)
    with pytest.raises(ConfigError, match="give it at least one"):
        CacheSettings(folder=tmp_path, limit_bytes=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_goes_to_a_url_and_comes_back_with_the_same_bytes(tmp_path, images, latents, settings, kind):
    path = write_store(tmp_path / "store", images, latents, **KINDS[kind])
    there = open_remote(url_of(tmp_path / "there"), settings)
    assert copy_store(path, there).units_copied == 3
    assert contents(tmp_path / "there") == contents(path)
    assert copy_store(there, tmp_path / "back").units_copied == 3
    assert contents(tmp_path / "back") == contents(path)
    assert copy_store(there, tmp_path / "back").units_copied == 0


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_that_was_interrupted_goes_on(tmp_path, store_path, settings, monkeypatch):
    there, sent = tmp_path / "there", []
    put = Moody.put_file

    def put_some(self, lpath, rpath, **kwargs):
        sent.append(rpath)
        if len(sent) == 50:
            raise KeyboardInterrupt
        put(self, lpath, rpath, **kwargs)

    monkeypatch.setattr(Moody, "put_file", put_some)
    with pytest.raises(KeyboardInterrupt):
        copy_store(store_path, open_remote(url_of(there), settings))
    with pytest.raises(StoreMismatch, match="There is no store"):
        Store(open_remote(url_of(there), settings))
    done = len(list(there.glob("units/*")))
    assert 0 < done < 3
    assert copy_store(store_path, open_remote(url_of(there), settings)).units_copied == 3 - done
    assert contents(there) == contents(store_path)


@pytest.mark.parametrize("number", [0, 1, 5, 30, 60])
def test_a_download_that_was_interrupted_goes_on(tmp_path, store_path, settings, monkeypatch, number):
    url, count, fetch = open_remote(url_of(store_path), settings), [0], fetching.RemoteStore.fetch
    numbers(Store(url))

    def fetch_some(self, *arguments):
        count[0] += 1
        if count[0] == number + 1:
            raise KeyboardInterrupt
        fetch(self, *arguments)

    monkeypatch.setattr(fetching.RemoteStore, "fetch", fetch_some)
    with pytest.raises(KeyboardInterrupt):
        copy_store(url, tmp_path / "here")
    with pytest.raises(StoreMismatch, match="There is no store"):
        Store(tmp_path / "here")
    copy_store(url, tmp_path / "here")
    assert contents(tmp_path / "here") == contents(store_path)


def test_damage_is_not_copied(tmp_path, store_path, settings):
    shard = store_path / shard_path("projected", 0, 0)
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreCorrupt, match="and a copy would be"):
        copy_store(store_path, open_remote(url_of(tmp_path / "there"), settings))
    assert not (tmp_path / "there").exists()


def test_a_file_that_is_lost_at_the_url_is_copied_again(tmp_path, store_path, settings):
    there = open_remote(url_of(tmp_path / "there"), settings)
    copy_store(store_path, there)
    (tmp_path / "there" / shard_path("projected", 0, 1)).unlink()
    assert copy_store(store_path, there).units_copied == 1
    assert contents(tmp_path / "there") == contents(store_path)


def test_a_copy_over_another_store_is_refused(tmp_path, store_path, images, latents, settings):
    other = write_store(tmp_path / "other", images, latents + 1)
    before = contents(other)
    with pytest.raises(StoreMismatch, match="Another store lies at"):
        copy_store(store_path, open_remote(url_of(other), settings))
    with pytest.raises(StoreMismatch, match="Another store lies at"):
        copy_store(open_remote(url_of(store_path), settings), other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/diary.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something else"):
        copy_store(open_remote(url_of(store_path), settings), tmp_path / "full")
    with pytest.raises(StoreMismatch, match=r"local.* both"):
        copy_store(store_path, tmp_path / "copy")
    assert contents(other) == before


def test_a_remote_path_names_its_url_and_is_read_only(store_path, settings):
    path = open_remote(url_of(store_path), settings)
    assert isinstance(path, RemotePath)
    assert str(path / "units" / "000000.json") == f"{url_of(store_path)}/units/000000.json"
    with pytest.raises(OSError, match="can only be read"):
        (path / "manifest.json").open("wb")
    assert sorted(found.name for found in (path / "units").glob("*.json")) == [
        "000000.json",
        "000001.json",
        "000002.json",
    ]


@pytest.mark.parametrize("place", ["pipe:touch {}", "pipe://touch {}", "pipe::touch {}"])
def test_a_pipe_is_no_store_and_runs_nothing(tmp_path, place, settings):
    canary = tmp_path / "ran"
    with pytest.raises((StoreMismatch, ConfigError)):
        Store(store_path_of(place.format(canary), settings))
    assert not canary.exists()
