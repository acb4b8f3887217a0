"""What a tar may hold: samples as webdataset sees them, and nothing that leaves it, hides images or was cut."""

import dataclasses
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caev2.errors import Caev2Error, SourceError, UnsafeFile
from caev2.store.images import open_images
from tests.store.sources.written import write_tar, write_webdataset

PICTURE = b"not decoded here"


def keys_of(path: Path) -> list[str]:
    return list(open_images(path).keys)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its files open
def test_samples_are_those_of_stock_webdataset(tmp_path):
    """Every sample that webdataset yields with a `jpg` is an image here, with the same bytes and label."""
    import webdataset

    members = {
        "./a/b.c/one.jpg": b"1",
        "./a/b.c/one.cls": b"3",
        "./a/b.c/one.json": b"{}",
        "two.JPG": b"2",
        "two.mask.png": b"no",
        "two.cls": b"0",
        "__meta__/x.jpg": b"no",
        ".hidden.jpg": b"no",
        "no suffix": b"no",
        "three.txt": b"no",
        "four words and dots.jpg": b"4",
    }
    tar = write_tar(tmp_path / "x.tar", members)
    source = open_images(tar)
    theirs = webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False)
    wanted = {sample["jpg"]: sample.get("cls", b"-1") for sample in theirs if "jpg" in sample}
    assert {source.read(place): str(source.labels[place]).encode() for place in range(len(source))} == wanted
    assert list(source.keys) == ["x/a/b.c/one.jpg", "x/four words and dots.jpg", "x/two.JPG"]
    assert source.classes == ("0", "1", "2", "3")


def test_keys_are_those_of_the_folders_that_the_tars_unpack_to(tmp_path):
    for name in ("b.tar", "sub/a.x.tar"):
        members = {"cat/one.png": name.encode(), "dog/two.png": b"2", "cat/ü.png": b"3"}
        tar = write_tar(tmp_path / "tars" / name, members)
        with tarfile.open(tar) as opened:
            opened.extractall(tmp_path / "folders" / name.removesuffix(".tar"), filter="data")
    tars, folders = open_images(tmp_path / "tars"), open_images(tmp_path / "folders")
    assert tars.keys == folders.keys
    assert [tars.read(place) for place in range(6)] == [folders.read(place) for place in range(6)]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_tars_is_read_with_long_names(format, tmp_path):
    name = "/".join(["long" * 9] * 4) + "/" + "n" * 90 + ".png"
    tar = write_tar(tmp_path / "x.tar", {name: PICTURE, "b.png": PICTURE}, format=format)
    source = open_images(tar)
    assert list(source.keys) == sorted([f"x/{name}", "x/b.png"])
    assert source.read(0) == source.read(1) == PICTURE


def test_names_of_classes_and_numbers_are_labels(tmp_path):
    tar = write_tar(tmp_path / "x.tar", {"a.png": b"", "a.cls": b"dog\n", "b.png": b"", "b.cls": b"cat", "c.png": b""})
    source = open_images(tar)
    assert (source.labels, source.classes) == ((1, 0, -1), ("cat", "dog"))


@pytest.mark.parametrize(
    ("kind", "name", "link"),
    [
        (tarfile.SYMTYPE, "a.png", "/etc/passwd"),
        (tarfile.LNKTYPE, "a.png", "b.png"),
        (tarfile.FIFOTYPE, "a.png", ""),
        (tarfile.CHRTYPE, "a.png", ""),
        (tarfile.REGTYPE, "../a.png", ""),
        (tarfile.REGTYPE, "x/../../a.png", ""),
        (tarfile.REGTYPE, "/a.png", ""),
        (tarfile.DIRTYPE, "..", ""),
        (tarfile.SYMTYPE, "not an image", "b.png"),
    ],
)
def test_a_member_that_could_lead_elsewhere_is_refused(kind, name, link, tmp_path):
    tar = write_tar(tmp_path / "x.tar", {"b.png": PICTURE})
    with tarfile.open(tar, "a") as file:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        file.addfile(info)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UnsafeFile, match=r"x\.tar: the member"):
        open_images(tar)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", ["pipe:cat x.tar", "pipe:touch {canary}", Path("pipe:touch {canary}")])
def test_a_command_in_place_of_a_path_is_refused_and_not_run(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = type(place)(str(place).format(canary=tmp_path / "canary"))
    with pytest.raises(UnsafeFile, match="asks to run a command"):
        open_images(given)
    assert list(tmp_path.iterdir()) == []


def test_a_sample_with_two_images_is_refused_and_named(tmp_path):
    tar = write_tar(tmp_path / "x.tar", {"day.one.jpg": b"1", "day.two.jpg": b"2"})
    with pytest.raises(SourceError, match=r"sample 'day' has 2 images, .one.jpg and .two.jpg"):
        open_images(tar)
    tar = write_tar(tmp_path / "x.tar", {"day.jpg": b"1", "day.JPG": b"2"})
    with pytest.raises(SourceError, match=r"'day.JPG' is there twice"):
        open_images(tar)


def test_two_names_that_are_equal_in_unicode_are_refused(tmp_path):
    tar = write_tar(tmp_path / "x.tar", {"\u00fc.png": b"1", "u\u0308.png": b"2"})
    with pytest.raises(SourceError, match="have the same key"):
        open_images(tar)


def two_images() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("a.png", "b.png"):
            info = tarfile.TarInfo(name)
            info.size = len(PICTURE) * 50
            tar.addfile(info, io.BytesIO(PICTURE * 50))
    return buffer.getvalue()


WHOLE = two_images()
END = 2 * (512 + 1024)


@pytest.mark.parametrize("length", [0, 1, 511, 512, 700, 1535, 1536, 1600, 2048, 2500, END, END + 100])
def test_a_tar_that_was_cut_anywhere_is_refused(length, tmp_path):
    (tmp_path / "x.tar").write_bytes(WHOLE[:length])
    with pytest.raises(SourceError, match=r"x\.tar"):
        open_images(tmp_path / "x.tar")


def test_tars_that_were_joined_are_refused(tmp_path):
    (tmp_path / "x.tar").write_bytes(WHOLE + WHOLE)
    with pytest.raises(SourceError, match="goes on after its end"):
        open_images(tmp_path / "x.tar")


@given(place=st.integers(0, END + 511), value=st.integers(0, 255))
def test_no_byte_makes_a_tar_crash_or_lose_an_image(tmp_path_factory, place, value):
    file = tmp_path_factory.mktemp("damaged") / "x.tar"
    file.write_bytes(WHOLE[:place] + bytes([value]) + WHOLE[place + 1 :])
    try:
        found = len(open_images(file))
    except Caev2Error as problem:
        found = 2 if "x.tar" in str(problem) else 0
    assert found == 2


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("way", ["shorter", "of one size", "another file"])
def test_a_tar_that_changed_since_it_was_listed_is_named_and_no_other_image_read(way, opened, tmp_path):
    file = tmp_path / "x.tar"
    file.write_bytes(WHOLE)
    source = open_images(file)
    if opened:
        assert source.read(0) == PICTURE * 50
    if way == "another file":
        write_tar(tmp_path / "new.tar", {"b.png": b"b", "a.png": b"a"}).rename(file)
    else:
        file.write_bytes(WHOLE[:2500] if way == "shorter" else bytes(len(WHOLE)))
        os.utime(file, ns=(1, 1))  # it may be written twice within a tick of the clock
    if way == "another file" and opened:
        assert source.read(1) == PICTURE * 50  # the old file is read as long as it is open
    else:
        with pytest.raises(
            SourceError, match=r"x\.tar has changed since its images were listed: it has .* Run the same"
        ):
            source.read(1)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_tars_are_read_in_any_order_but_told_apart(mode, tmp_path):
    images = {f"{number}.png": bytes([number]) * 5000 for number in range(9)}
    tar = write_tar(tmp_path / "x.tar", images, mode)  # told by its content, not by its name
    source = open_images(tar)
    assert not source.seekable
    assert [source.read(place)[0] for place in (3, 4, 1, 8, 0)] == [3, 4, 1, 8, 0]
    tar.write_bytes(tar.read_bytes()[:-30])
    with pytest.raises(SourceError, match=r"x\.tar"):
        open_images(tar)


def test_zstd_is_refused_and_told_what_to_do(tmp_path):
    (tmp_path / "x.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    with pytest.raises(SourceError, match="zstd -d"):
        open_images(tmp_path / "x.tar.zst")


def test_patterns_stand_for_tars_that_must_be_there(tmp_path):
    for number in range(12):
        write_webdataset(tmp_path / "shards" / f"{number:06d}.tar", {f"{number}": b"x"})
    whole = keys_of(tmp_path / "shards")
    assert len(whole) == 12
    assert whole[11] == "000011/11.png"
    assert keys_of(tmp_path / "shards" / "{000000..000011}.tar") == whole
    assert keys_of(tmp_path / "shards" / "{{000000..000003},00000{4..9}}.tar") == whole[:10]
    assert keys_of(tmp_path / "shards" / "*.tar") == whole
    assert keys_of(tmp_path / "shards" / "00001?.tar") == whole[10:]
    assert keys_of(tmp_path / "{shards,shards}" / "000001.tar") == [f"shards/{whole[1]}"]
    for pattern in ("{000000..000012}.tar", "x*.tar", "{0..99999999999}.tar", "{000000.tar"):
        with pytest.raises(SourceError, match=r"stands for|cannot be read"):
            open_images(tmp_path / "shards" / pattern)


@pytest.mark.parametrize(
    "place", ["x" * 5000, "{" + "a" * 5000 + ",b}.tar", "x\0y", "x#y#z", "{}", "{2..1}.tar", "{,}"]
)
def test_paths_that_cannot_be_are_refused_like_others(place, tmp_path):
    with pytest.raises(SourceError):
        open_images(tmp_path / place)


def test_a_path_that_exists_is_no_pattern(tmp_path):
    write_webdataset(tmp_path / "{a,b}#c*.tar", {"1": b"x"})
    assert keys_of(tmp_path / "{a,b}#c*.tar") == ["{a,b}#c*/1.png"]
    assert keys_of(tmp_path) == ["{a,b}#c*/1.png"]


def test_tars_named_for_training_and_validation_are_two_parts(tmp_path):
    for name in ("x-train-0.tar", "x-train-1.tar", "x-val-0.tar", "x-test-0.tar"):
        write_webdataset(tmp_path / name, {name: b"x"})
    train, val = (open_images(tmp_path, split) for split in ("train", "val"))
    assert [key[:7] for key in train.keys] == ["x-train", "x-train"]
    assert [key[:5] for key in val.keys] == ["x-val"]
    assert (train.split, val.split) == ("train", "val")
    (tmp_path / "x-val-0.tar").unlink()
    assert open_images(tmp_path, "val").keys[0].startswith("x-test")
    assert dataclasses.replace(open_images(tmp_path / "x-train-0.tar", "val")).split is None


def test_opened_tars_are_closed_as_others_are_opened(tmp_path):
    for number in range(70):
        write_webdataset(tmp_path / f"{number:02d}.tar", {"x": bytes([number])})
    source = open_images(tmp_path)
    for _ in range(2):
        assert [source.read(place)[0] for place in range(70)] == list(range(70))
    open_here = [link for link in Path("/proc/self/fd").iterdir() if link.resolve().is_relative_to(tmp_path)]
    assert len(open_here) <= 64
