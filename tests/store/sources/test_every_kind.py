"""What holds for every kind of source: keys, bytes, labels, order, digests; in other processes, too."""

import pickle
import shutil
from pathlib import Path

import pytest

from caev2.errors import SourceError
from caev2.store.images import ImageSource, open_images
from caev2.workers import in_order
from tests.store.sources.written import (
    CLASSES,
    label_of,
    odd_images,
    write_arrow,
    write_files,
    write_list,
    write_parquet,
    write_tar,
    write_webdataset,
)


def as_folder(path: Path, images: dict[str, bytes]) -> Path:
    for label, name in enumerate(CLASSES):
        write_files(path / name, {f"{key}.png": data for key, data in images.items() if label_of(key) == label})
    return path


def as_compressed_tar(path: Path, images: dict[str, bytes]) -> Path:
    members = {f"{name}.png": data for name, data in images.items()}
    members |= {f"{name}.cls": str(label_of(name)).encode() for name in images}
    return write_tar(path / "x.tgz", members, "w:gz")


def as_two_tars(path: Path, images: dict[str, bytes]) -> Path:
    names = sorted(images)
    write_webdataset(path / "0.tar", {name: images[name] for name in names[::2]})
    write_webdataset(path / "1.tar", {name: images[name] for name in names[1::2]})
    return path / "{0..1}.tar"


def as_saved(path: Path, images: dict[str, bytes]) -> Path:
    """The folder that `save_to_disk` makes."""
    write_arrow(path / "data-00000-of-00001.arrow", images)
    (path / "dataset_info.json").write_text("{}")
    (path / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    return path


KINDS = {
    "folder": as_folder,
    "list": lambda path, images: write_list(path / "list.txt", images),
    "webdataset": lambda path, images: write_webdataset(path / "x.tar", images),
    "folder of tars": lambda path, images: as_two_tars(path, images).parent,
    "pattern of tars": as_two_tars,
    "compressed tar": as_compressed_tar,
    "parquet": lambda path, images: write_parquet(path / "data" / "train-00000-of-00001.parquet", images).parents[1],
    "parquet file": lambda path, images: write_parquet(path / "x.parquet", images),
    "arrow": lambda path, images: write_arrow(path / "x.arrow", images),
    "saved": as_saved,
}


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def write(kind: str, path: Path, images: dict[str, bytes] | None = None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return KINDS[kind](path, odd_images() if images is None else images)


@pytest.fixture
def source(kind, tmp_path) -> ImageSource:
    return open_images(write(kind, tmp_path / "here"))


def test_every_image_is_there_with_its_bytes_and_its_label(source):
    images = odd_images()
    wanted = sorted((data, CLASSES[label_of(name)]) for name, data in images.items())
    names = dict(zip(("0", "1"), CLASSES, strict=True))  # what has no names of classes has numbers
    said = [source.classes[label] for label in source.labels]
    assert sorted((source.read(place), names.get(one, one)) for place, one in enumerate(said)) == wanted


def test_keys_are_sorted_unique_and_hold_the_names_where_there_are_names(kind, source):
    assert list(source.keys) == sorted(set(source.keys))
    if "parquet" not in kind and kind not in ("arrow", "saved"):
        assert {key.rpartition("/")[2] for key in source.keys} == {f"{name}.png" for name in odd_images()}


def test_keys_and_digest_do_not_depend_on_where_the_source_lies(kind, source, tmp_path):
    other = open_images(write(kind, tmp_path / "elsewhere and\nfar"))
    assert (other.keys, other.labels, other.digest()) == (source.keys, source.labels, source.digest())


def test_another_label_or_key_is_another_digest(kind, source, tmp_path):
    images = odd_images()
    images["another"] = images.pop("plain")  # of other length, so of another label
    assert open_images(write(kind, tmp_path / "other", images)).digest() != source.digest()


def test_the_listing_tells_where_the_bytes_lie(kind, source):
    listing = source.listing()
    for place in range(len(source)):
        data = (source.root / listing.paths[place]).read_bytes()
        if ("tar" in kind and kind != "compressed tar") or kind == "webdataset":
            offset = listing.offsets[place]
            assert data[offset:].startswith(source.read(place))
        elif listing.offsets is None:
            assert data == source.read(place)


def test_workers_and_pickles_read_the_same(source):
    images = [source.read(place) for place in range(len(source))]  # files are open before the processes are forked
    copied = pickle.loads(pickle.dumps(source))
    assert [copied.read(place) for place in range(len(source))] == images
    order = [*range(len(source)), 3, 0, 7]
    assert list(in_order(source.read, order, workers=2)) == [images[place] for place in order]


def test_some_of_the_images_are_a_source_of_their_own(source):
    some = source.take([5, 1, 3])
    assert some.keys == tuple(source.keys[place] for place in (1, 3, 5))
    assert [some.read(place) for place in range(3)] == [source.read(place) for place in (1, 3, 5)]
    assert some.take([2]).read(0) == source.read(5)
    assert some.classes == source.classes
    assert some.listing().paths[1] == source.paths[3]
    assert len({some.digest(), source.digest(), source.take([1, 3]).digest()}) == 3


def test_what_has_vanished_is_named(kind, source, tmp_path):
    shutil.rmtree(tmp_path / "here")
    with pytest.raises(SourceError, match="cannot read"):
        source.read(0)


def test_only_a_compressed_tar_cannot_be_sought(kind, source):
    assert source.seekable == (kind != "compressed tar")
