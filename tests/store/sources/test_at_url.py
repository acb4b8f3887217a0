"""Images at URLs: keys, bytes, labels and stores of the local copy; every file fetched as seldom as the cache allows."""

import functools
import http.server
import pickle
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
import pytest

from caev2.errors import ConfigError, OutputError, SourceError, SourceUnreachable
from caev2.extract.run import extract
from caev2.store.images import ImageSource, ImagesUrl, open_images
from caev2.store.pixels.replay import ViewReplay
from caev2.store.reader import Store
from caev2.store.remote import fetching
from caev2.store.remote import paths as remote
from caev2.store.remote.cache import COPIES, CacheSettings
from caev2.store.sources.listings import LISTINGS
from caev2.store.verify import verify_images
from caev2.workers import in_order
from tests.commands.invoking import EXTRACT as EXTRACT_DEMO
from tests.commands.invoking import caev2, refusal, train
from tests.commands.test_sources import use
from tests.made_up import EXTRACT, PatchMeans
from tests.s3 import serving_s3
from tests.store.sources.test_every_kind import KINDS, write
from tests.store.sources.written import odd_images, write_tar, write_webdataset

FETCHED_WHOLE = [kind for kind in KINDS if kind != "list"]
NAMED = ["webdataset", "pattern of tars", "compressed tar", "parquet file", "arrow"]


@dataclass
class Server:
    """A server of a local folder, and what was asked of it."""

    url: str
    root: Path
    """What lies at the URL, where that is a folder here."""
    fetched: list[str] = field(default_factory=list)
    """Files that were fetched."""
    status: int = 200
    """What every request is answered with, if it is another."""


@pytest.fixture
def web(tmp_path) -> Iterator[Server]:
    """A web server on loopback: no lists of folders, no parts of files, a date but no ETag."""
    root = tmp_path / "web"
    root.mkdir()
    told = Server("", root)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def send_head(self):
            if told.status != 200 or self.path.endswith("/"):
                self.send_error(told.status if told.status != 200 else 404)
                return None
            return super().send_head()

        def do_GET(self):
            told.fetched.append(self.path.rpartition("/")[2])
            super().do_GET()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}"
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def patient_server(monkeypatch):
    monkeypatch.setattr(fetching, "_WAITS_S", (0.0, 0.0))


@pytest.fixture
def cache(tmp_path) -> CacheSettings:
    return CacheSettings(folder=tmp_path / "cache", limit_bytes=10**9)


def same(one: ImageSource, other: ImageSource) -> bool:
    assert (one.keys, one.paths, one.offsets, one.labels) == (other.keys, other.paths, other.offsets, other.labels)
    assert (one.digest(), one.split, one.seekable) == (other.digest(), other.split, other.seekable)
    return [one.read(place) for place in range(len(one))] == [other.read(place) for place in range(len(one))]


@pytest.mark.parametrize("kind", NAMED)
def test_files_on_a_web_server_are_the_source_of_the_local_ones(kind, web, cache):
    place = write(kind, web.root / "deep er")
    there = open_images(ImagesUrl(str(place).replace(str(web.root), web.url), cache))
    assert same(there, open_images(place))
    workers = list(in_order(there.read, range(len(there)), workers=2))
    assert workers == [there.read(place) for place in range(len(there))]
    assert pickle.loads(pickle.dumps(there)).read(3) == workers[3]


@pytest.mark.parametrize("kind", FETCHED_WHOLE)
def test_any_kind_in_a_bucket_is_the_source_of_the_local_one(kind, tmp_path, cache, monkeypatch):
    images = {
        name: data for name, data in odd_images().items() if "\n" not in name
    }  # the server of the test has no such
    with serving_s3(monkeypatch) as bucket:
        place = write(kind, tmp_path / "here", images)
        fsspec.filesystem("s3").put(str(tmp_path / "here") + "/", f"{bucket}/there/", recursive=True)
        there = open_images(ImagesUrl(str(place).replace(str(tmp_path / "here"), f"{bucket}/there"), cache))
        assert same(there, open_images(place))
        assert list(in_order(there.read, [3, 0], workers=1)) == [there.read(3), there.read(0)]


def test_the_store_of_a_bucket_has_the_bytes_of_the_local_one(tmp_path, cache, monkeypatch):
    place = write("pattern of tars", tmp_path / "here")
    extract(place, tmp_path / "local", EXTRACT, teacher=PatchMeans())
    with serving_s3(monkeypatch) as bucket:
        fsspec.filesystem("s3").put(str(tmp_path / "here") + "/", f"{bucket}/there/", recursive=True)
        url = ImagesUrl(f"{bucket}/there/{{0..1}}.tar", cache)
        extract(url, tmp_path / "remote", EXTRACT, teacher=PatchMeans())
        assert files_of(tmp_path / "remote") == files_of(tmp_path / "local")
        store = Store(tmp_path / "local")
        assert verify_images(store, ViewReplay(store, open_images(url))) == ()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def six_tars(folder: Path) -> str:
    """Tars of 10,240 bytes each, as a pattern."""
    for number in range(6):
        write_webdataset(folder / f"{number}.tar", {"one": bytes([number]) * 3000, "two": b"2" * 3000})
    return "{0..5}.tar"


def read_all(source: ImageSource) -> list[bytes]:
    return [source.read(place) for place in range(len(source))]


def test_a_tar_is_fetched_once_and_listed_once(web, cache):
    url = ImagesUrl(f"{web.url}/{six_tars(web.root)}", cache)
    assert len(read_all(open_images(url))) == 12
    assert sorted(web.fetched) == [f"{number}.tar" for number in range(6)]
    read_all(open_images(url))
    remote._pool().shutdown(wait=True)  # what is fetched ahead
    remote._pool.cache_clear()
    assert len(web.fetched) == 6
    shutil.rmtree(cache.folder / COPIES)  # as if others had made room
    source = open_images(url)
    assert len(web.fetched) == 6
    source.read(11)
    assert web.fetched[6:] == ["5.tar"]


def test_a_cache_smaller_than_the_images_is_enough_and_keeps_to_its_limit(web, cache):
    small = CacheSettings(folder=cache.folder, limit_bytes=25_000)
    source = open_images(ImagesUrl(f"{web.url}/{six_tars(web.root)}", small))
    assert source.digest() == open_images(web.root).digest()
    assert read_all(source) == read_all(open_images(web.root))
    kept = sum(path.stat().st_size for path in (cache.folder / COPIES).rglob("*") if path.is_file())
    assert 0 < kept <= 25_000


def test_listings_that_are_damaged_are_made_anew(web, cache):
    url = ImagesUrl(f"{web.url}/{six_tars(web.root)}", cache)
    wanted = open_images(url).digest()
    files = [path for path in (cache.folder / LISTINGS).rglob("*") if path.is_file()]
    assert len(files) == 6
    for number, file in enumerate(files):
        file.write_bytes(file.read_bytes()[: 40 * number])
    assert open_images(url).digest() == wanted


def test_files_are_fetched_ahead_in_their_order_and_not_at_random(web, cache):
    url = ImagesUrl(f"{web.url}/{six_tars(web.root)}", cache)
    open_images(url)
    shutil.rmtree(cache.folder / COPIES)
    web.fetched.clear()
    source = open_images(url)
    source.read(0)
    wait_for(lambda: web.fetched == ["0.tar", "1.tar"])
    source.read(8)
    source.read(6)
    assert web.fetched == ["0.tar", "1.tar", "4.tar", "3.tar"]


def wait_for(condition) -> None:
    given_up = threading.Event()
    for _ in range(200):
        if condition():
            return
        given_up.wait(0.05)
    raise AssertionError("it never happened")


@pytest.mark.parametrize("listed", [False, True])
def test_a_tar_that_changed_at_its_url_is_named(listed, web, cache):
    six_tars(web.root)
    url = ImagesUrl(f"{web.url}/{{0..5}}.tar", cache)
    if listed:
        open_images(url)
    source = open_images(url)
    shutil.rmtree(cache.folder / COPIES)
    write_tar(web.root / "3.tar", {"one.png": b"another"}, bufsize=20480)
    (web.root / "4.tar").unlink()
    with pytest.raises(
        SourceError, match=r"/3\.tar has changed since its images were listed: it is .* and was .*Run the"
    ):
        source.read(6)
    with pytest.raises(SourceError, match=r"cannot read http.*/4\.tar: it is not there any more\. Restore it"):
        source.read(8)
    with pytest.raises(SourceError, match=r"There is no file at http.*/4\.tar"):
        open_images(url)


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_refuses_is_named(status, web, cache):
    url = ImagesUrl(f"{web.url}/{six_tars(web.root)}", cache)
    source = open_images(url)
    shutil.rmtree(cache.folder / COPIES)
    web.status = status
    for action in (lambda: open_images(url), lambda: source.read(0)):
        with pytest.raises(SourceUnreachable, match=f"/0.tar may not be read: the server says {status}. Look at the"):
            action()


def test_a_server_that_does_not_answer_is_named_after_some_attempts(web, cache):
    url = ImagesUrl(f"{web.url}/{six_tars(web.root)}", cache)
    source = open_images(url)
    shutil.rmtree(cache.folder / COPIES)
    web.status = 503
    with pytest.raises(SourceUnreachable, match=r"/0\.tar could not be read, 3 times: 503"):
        source.read(0)
    web.status = 200
    assert source.read(0) == bytes([0]) * 3000
    with pytest.raises(SourceUnreachable, match=r"could not be read, 3 times: .* run the same command again"):
        open_images(ImagesUrl("http://127.0.0.1:1/x.tar", cache))


def test_an_extraction_whose_server_fails_goes_on_later_with_what_was_finished(web, tmp_path, cache):
    for number, name in enumerate(sorted(odd_images())):
        write_webdataset(web.root / f"{number}.tar", {"x": odd_images()[name]})
    url = ImagesUrl(f"{web.url}/{{0..9}}.tar", cache)
    extract(url, tmp_path / "whole", EXTRACT, teacher=PatchMeans())
    shutil.rmtree(cache.folder / COPIES)
    source = open_images(url)
    (web.root / "9.tar").rename(tmp_path / "away.tar")
    with pytest.raises(SourceError, match=r"9\.tar: it is not there any more"):
        extract(source, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    assert len(list((tmp_path / "store/units").iterdir())) == 1
    (tmp_path / "away.tar").rename(web.root / "9.tar")
    assert extract(url, tmp_path / "store", EXTRACT, teacher=PatchMeans()).rows_computed == 4
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("/*.tar", "is not looked up at URLs"),
        ("/0.tar?download=true", "is not looked up at URLs"),
        ("", "web servers do not list folders"),
        ("/{0..1}", "stands for no tars or tables"),
        ("/{0..1.tar", "one is not closed"),
        ("/{0..9}.tar", "There is no file at"),
        ("/list.txt", "is a list of paths at a URL"),
        ("/0.tar#image", "has no columns"),
        ("/{0.tar,x.parquet}", "There is no file at .*x.parquet"),
    ],
)
def test_what_cannot_be_meant_is_refused(place, message, web, cache):
    six_tars(web.root)
    (web.root / "list.txt").write_text("0.png")
    with pytest.raises(SourceError, match=message):
        open_images(ImagesUrl(web.url + place, cache))


def test_urls_of_no_kind_and_of_no_place_are_refused(cache, tmp_path):
    with pytest.raises(ConfigError, match=r"nonsense://x cannot be opened"):
        open_images(ImagesUrl("nonsense://x/y.tar", cache))
    for text in ("s3://", "s3://{a,b}/x.tar"):
        with pytest.raises(SourceError, match="in one place"):
            open_images(ImagesUrl(text, cache))
    with pytest.raises(SourceError, match="and a URL as text"):
        open_images(Path("s3://bucket/x.tar"))
    with pytest.raises(SourceError, match="nothing lies there"):
        open_images(ImagesUrl(f"file://{tmp_path}/nothing", cache))


def test_a_cache_that_cannot_be_written_is_named(web, tmp_path):
    (tmp_path / "file").write_text("no folder")
    six_tars(web.root)
    with pytest.raises(OutputError, match="CAEV2_CACHE"):
        open_images(ImagesUrl(f"{web.url}/0.tar", CacheSettings(folder=tmp_path / "file", limit_bytes=10**6)))


def test_every_command_takes_a_url_for_images_and_says_in_one_line_what_is_wrong(web, tmp_path, monkeypatch):
    monkeypatch.setenv("CAEV2_CACHE", str(tmp_path / "cache"))
    for part, first in (("train", 0), ("val", 10)):
        write_webdataset(web.root / f"x-{part}.tar", dict(list(odd_images(20).items())[first:][:10]))
    url = f"{web.url}/x-{{train,val}}.tar"
    store = use(url, tmp_path)
    assert len(Store(store)) == 10
    probed = caev2("probe", "--pixels", "8", url, "--kind", "knn", "--device", "cpu", "--quiet")
    assert probed.exit_code == 0, probed.output
    assert "`RUN IMAGES`, with one run" in refusal("probe", url, url)
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {COPIES, LISTINGS}
    web.status = 403
    for command in (("extract", url, tmp_path / "other", *EXTRACT_DEMO), train(store, tmp_path / "run", url)):
        assert "x-train.tar may not be read: the server says 403" in refusal(*command)
