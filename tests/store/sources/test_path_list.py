"""Lists of paths: their lines, their labels, and what they may not name."""

import pytest

from caev2.errors import SourceError, UnsafeFile
from caev2.store.images import open_images
from tests.store.sources.written import write_files


@pytest.fixture
def folder(tmp_path):
    for place in ("cat", "dog"):
        write_files(tmp_path / "set" / place, {"a.png": place.encode(), "b, c.png": b"b", "odd\nname.png": b"c"})
    (tmp_path / "secret.png").write_bytes(b"secret")
    return tmp_path / "set"


def listed(folder, *lines: str, ending: str = "\n"):
    (folder / "list.txt").write_bytes(ending.join(lines).encode())
    return open_images(folder / "list.txt")


def test_a_list_of_all_files_is_the_folder(folder):
    lines = [f"./{place}/{name}" for place in ("dog", "cat") for name in ("b, c.png", "a.png")]
    source = listed(folder, "# a comment", *lines, "", '"cat/odd\\nname.png"', " \t", '"dog/odd\\nname.png"')
    assert source.digest() == open_images(folder).digest()
    assert [source.read(place) for place in range(3)] == [b"cat", b"b", b"c"]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_labels_stand_behind_a_tab(folder, ending):
    source = listed(folder, "cat/a.png\t2", "dog/a.png\t0", '"cat/b, c.png"\t', ending=ending)
    assert source.keys == ("cat/a.png", "cat/b, c.png", "dog/a.png")
    assert (source.labels, source.classes) == ((2, -1, 0), ("0", "1", "2"))
    source = listed(folder, "cat/a.png\ttom cat", "dog/a.png\t1", ending=ending)
    assert (source.labels, source.classes) == ((1, 0), ("1", "tom cat"))


@pytest.mark.parametrize("path", ["../secret.png", "cat/../../secret.png", "/secret.png", '"..\\u002fsecret.png"'])
def test_a_path_that_leads_out_is_refused(folder, path):
    with pytest.raises(UnsafeFile, match=r"list\.txt, line 2: .* leads out of"):
        listed(folder, "cat/a.png", path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cat/none.png", "line 2: there is no file"),
        ("cat", "line 2: there is no file"),
        ("x" * 5000, "line 2: there is no file"),
        ('"cat/a.png', "line 2: a path that begins with a quote is a JSON string"),
        ('"cat/a.png" x', "line 2: ' x' stands behind the path"),
        ("cat//a.png", "have the same key"),
    ],
)
def test_a_line_that_cannot_be_followed_is_named(folder, line, message):
    with pytest.raises(SourceError, match=message):
        listed(folder, "cat/a.png", line)


def test_a_list_without_a_path_is_refused(folder):
    with pytest.raises(SourceError, match="no line names one"):
        listed(folder, "# nothing")


def test_lists_named_for_training_and_validation_are_two_parts(folder):
    (folder / "train.txt").write_text("cat/a.png\ndog/a.png\n")
    (folder / "val.txt").write_text("cat/b, c.png\n")
    train, val = (open_images(folder / "{train,val}.txt", split) for split in ("train", "val"))
    assert (len(train), len(val), val.split) == (2, 1, "val")
    (folder / "more.txt").write_text("cat/a.png")
    with pytest.raises(SourceError, match="2 lists of paths were given"):
        open_images(folder / "{train,more}.txt")
