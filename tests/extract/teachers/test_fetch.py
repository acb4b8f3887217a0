"""Weights from the hub, from its cache and from plain addresses: what comes, and what is said when it does not."""

import hashlib
import json
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import timm
import torch
from open_clip.model import _build_vision_tower
from safetensors.torch import load_file, save_file

from caev2.errors import TeacherError
from caev2.extract.teachers import download
from caev2.extract.teachers.hub import Publication, fetch
from caev2.extract.teachers.identity import tower_sha256
from tests.extract.teachers.hub import Hub, asking

NAME, REPOSITORY = "timm:test_vit.r160_in1k", "timm/test_vit.r160_in1k"
FILE = f"{REPOSITORY}/model.safetensors"
OTHER = "timm:test_vit2.r160_in1k"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> bytes:
    """A trunk of timm as small as they come, in the file that its publisher would put at the hub."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=1000)
    path = tmp_path_factory.mktemp("published") / "model.safetensors"
    save_file(model.state_dict(), path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def hub(weights):
    hub = Hub({FILE: weights})
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def asker(hub, tmp_path_factory):
    with asking(tmp_path_factory.mktemp("home"), HF_ENDPOINT=hub.url) as asker:
        yield asker


@pytest.fixture
def sound(hub):
    """The hub as it should be, whatever the last test made of it."""
    hub.mode = "sound"
    hub.requests.clear()
    return hub


def fetched(asker, cache: Path) -> dict:
    status, out, err = asker.caev2("teachers", "--fetch", NAME, "--cache", cache, "--json")
    assert status == 0, err
    assert err == ""
    return json.loads(out)


def test_weights_come_from_the_hub_once_and_are_what_was_published(asker, sound, weights, tmp_path):
    first = fetched(asker, tmp_path)
    assert first["downloaded"]
    assert first["file_sha256"] == hashlib.sha256(weights).hexdigest()
    assert first["compared_with"] == "the published sha256"
    assert Path(first["file"]).read_bytes() == weights
    trunk = {name: value for name, value in load_file(first["file"]).items() if not name.startswith("head.")}
    assert first["identity"] == tower_sha256(trunk)
    assert f"--teacher {NAME}@/path/model.safetensors" in first["without_network"]
    assert str(tmp_path / "models--timm--test_vit.r160_in1k") in first["without_network"]
    asked = len(sound.requests)
    assert f"GET /cdn/{FILE}" in sound.requests
    again = fetched(asker, tmp_path)
    assert again == first | {"downloaded": False}
    assert len(sound.requests) == asked  # what is in the cache is used without asking


def test_a_described_teacher_says_where_its_file_lies(asker, sound, tmp_path):
    def cached() -> str | None:
        return json.loads(asker.caev2("teachers", NAME, "--cache", tmp_path, "--json")[1])["cached"]

    assert cached() is None
    assert sound.requests == []
    file = fetched(asker, tmp_path)["file"]
    assert cached() == file


def test_a_small_file_is_compared_with_the_digest_that_git_gives_it(asker, sound, tmp_path):
    sound.mode = "small"
    assert fetched(asker, tmp_path)["compared_with"] == "the published git sha1"


def test_where_the_hub_has_no_safetensors_the_pickle_is_fetched(asker, sound, tmp_path):
    model = open_clip.get_model_config("PE-Core-T-16-384")
    tower = _build_vision_tower(model["embed_dim"], model["vision_cfg"])
    torch.save({f"visual.{name}": value for name, value in tower.state_dict().items()}, tmp_path / "clip.bin")
    sound.files["timm/PE-Core-T-16-384/open_clip_pytorch_model.bin"] = (tmp_path / "clip.bin").read_bytes()
    status, out, err = asker.caev2(
        "teachers", "--fetch", "openclip:PE-Core-T-16-384/meta", "--cache", tmp_path / "cache", "--json"
    )
    assert (status, err) == (0, "")
    assert json.loads(out)["identity"] == tower_sha256(tower.state_dict())
    heads = [line.rpartition("/")[2] for line in sound.requests if line.startswith("HEAD")]
    assert heads == ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("401", "no such repository, or that it wants a token: set HF_TOKEN"),
        ("403", "asks for consent to its licence: accept it at huggingface.co and set HF_TOKEN"),
        ("404", "404"),
        ("short", "peer closed connection"),
    ],
)
def test_what_the_hub_refuses_ends_in_one_message(asker, sound, tmp_path, mode, message):
    sound.mode = mode
    said = asker.refusal("teachers", "--fetch", NAME, "--cache", tmp_path)
    assert f"The weights of {NAME} are not in the cache and cannot be downloaded" in said
    assert message in said
    assert f"fetch model.safetensors from the repository {REPOSITORY} of huggingface.co" in said
    assert f"--teacher {NAME}@/path/model.safetensors" in said
    assert not list(tmp_path.rglob("*.incomplete"))


def test_other_bytes_than_were_published_are_refused_and_not_kept(asker, sound, weights, tmp_path):
    sound.mode = "wrong"
    said = asker.refusal("teachers", "--fetch", NAME, "--cache", tmp_path)
    assert f"the published one {hashlib.sha256(weights).hexdigest()}. It was not kept: fetch it again" in said
    sound.mode = "sound"
    assert fetched(asker, tmp_path)["downloaded"]


def test_a_damaged_file_of_the_cache_is_refused_with_what_to_do(asker, sound, tmp_path):
    file = Path(fetched(asker, tmp_path)["file"])
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.resolve().write_bytes(content)
    said = asker.refusal("teachers", "--fetch", NAME, "--cache", tmp_path)
    assert "is not the published file: its sha256 is" in said
    assert f"It lies in the cache: remove it (rm {file.resolve()} {file}) and fetch it again" in said
    assert said.count("is not the published file") == 1
    file.resolve().unlink()
    file.unlink()
    assert fetched(asker, tmp_path)["downloaded"]


def test_offline_the_cache_is_used_and_what_it_lacks_is_named(asker, sound, tmp_path, tmp_path_factory):
    known = fetched(asker, tmp_path)
    sound.requests.clear()
    copied = tmp_path / "elsewhere"  # as the command says to take it to a machine without a network
    folder = "models--timm--test_vit.r160_in1k"
    shutil.copytree(tmp_path / folder, copied / folder, symlinks=True)
    home = tmp_path_factory.mktemp("offline")
    with asking(home, HF_ENDPOINT=sound.url, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(copied)) as offline:
        status, out, err = offline.caev2("teachers", "--fetch", NAME, "--json")
        assert (status, err) == (0, "")
        assert json.loads(out)["identity"] == known["identity"]
        assert not json.loads(out)["downloaded"]
        said = offline.refusal("teachers", "--fetch", OTHER)
        assert "offline mode is enabled" in said
        assert f"--teacher {OTHER}@/path/model.safetensors" in said
    assert sound.requests == []


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.slow  # the client tries for half a minute before it gives up
def test_a_hub_that_is_not_there_ends_in_one_message_and_the_cache_is_used(
    asker, sound, closed_port, tmp_path, tmp_path_factory
):
    fetched(asker, tmp_path)
    with asking(tmp_path_factory.mktemp("away"), HF_ENDPOINT=f"http://127.0.0.1:{closed_port}") as away:
        assert not fetched(away, tmp_path)["downloaded"]
        said = away.refusal("teachers", "--fetch", OTHER, "--cache", tmp_path)
        assert "cannot be downloaded ([Errno 111] Connection refused)" in said


@pytest.mark.slow  # for the same reason
@pytest.mark.parametrize("mode", ["500"])
def test_a_hub_that_fails_ends_in_one_message(asker, sound, tmp_path, mode):
    sound.mode = mode
    said = asker.refusal("teachers", "--fetch", NAME, "--cache", tmp_path)
    assert "cannot be downloaded (Server error '500 Internal Server Error' for url" in said


def test_weights_without_a_tag_or_that_come_with_the_package_are_not_fetched(asker, sound):
    assert "The weights of demo come with caev2: there is nothing to fetch" in asker.refusal(
        "teachers", "--fetch", "demo"
    )
    assert "are the file x.pt: there is nothing" in asker.refusal("teachers", "--fetch", "timm:test_vit@x.pt")
    assert "names no weights. Add @PATH of a file, or .TAG" in asker.refusal("teachers", "--fetch", "timm:test_vit")
    assert "Did you mean 'r160_in1k'?" in asker.refusal("teachers", "--fetch", "timm:test_vit.r60_in1k")
    assert "not both" in asker.refusal("teachers", NAME, "--fetch", NAME)
    assert sound.requests == []


@pytest.fixture
def plain(sound, small_files):
    """OpenAI's way: the sha256 is a part of the address."""
    content = small_files.torchscript.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    sound.files[f"models/{digest}/small.pt"] = content
    url = f"{sound.url}/cdn/models/{digest}/small.pt"
    return SimpleNamespace(publication=Publication(name="openclip:Small/own", url=url), content=content, hub=sound)


def test_a_plain_address_is_fetched_whole_and_once(plain, tmp_path):
    first = fetch(plain.publication, cache=tmp_path)
    assert (first.path, first.downloaded) == (tmp_path / "small.pt", True)
    assert first.path.read_bytes() == plain.content
    plain.hub.requests.clear()
    assert not fetch(plain.publication, cache=tmp_path).downloaded
    assert plain.hub.requests == []


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("short", r"ended after [\d,]+ of [\d,]+ bytes. Fetch it again"),
        ("wrong", "is not the published file.*It was not kept"),
        ("404", r"HTTP Error 404: Not Found\).*`wget -O small.pt .*` \(sha256 [0-9a-f]{64}\); then name the file"),
        ("500", "HTTP Error 500"),
    ],
)
def test_a_plain_address_that_gives_something_else_leaves_nothing_behind(plain, tmp_path, mode, message):
    plain.hub.mode = mode
    with pytest.raises(TeacherError, match=message):
        fetch(plain.publication, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_file_of_that_name_in_the_cache_is_refused(plain, tmp_path):
    (tmp_path / "small.pt").write_bytes(b"something else")
    with pytest.raises(TeacherError, match=r"is not the published file.*remove it \(rm .*small.pt\)"):
        fetch(plain.publication, cache=tmp_path)
    assert (tmp_path / "small.pt").read_bytes() == b"something else"


def test_plain_files_are_kept_where_openais_own_package_keeps_them():
    assert Path.home() / ".cache" / "clip" == download.URL_CACHE
