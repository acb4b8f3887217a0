"""Hugging Face datasets on disk: as their own library writes them, and what is refused."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from caev2.errors import SourceError, UnsafeFile
from caev2.store.images import open_images
from tests.store.sources.written import CLASSES, label_of, make_table, odd_images, write_arrow, write_parquet


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    os.environ.setdefault("HF_HOME", str(tmp_path_factory.mktemp("hub")))
    found = pytest.importorskip("datasets")
    found.disable_progress_bars()
    return found


@pytest.fixture(scope="module")
def dataset(datasets, tmp_path_factory):
    """Made by `datasets` from a folder of files, as a user would."""
    folder = tmp_path_factory.mktemp("files")
    images = odd_images(12)
    for name, data in images.items():
        (folder / f"{name}.png").write_bytes(data)
    features = datasets.Features({"label": datasets.ClassLabel(names=list(CLASSES)), "image": datasets.Image()})
    rows = {"image": [str(folder / f"{name}.png") for name in images], "label": [label_of(name) for name in images]}
    return datasets.Dataset.from_dict(rows, features=features)


def check(source, dataset) -> None:
    """The same images in the same order, with the same labels, as `datasets` itself says."""
    images = list(odd_images(12).values())
    assert [source.read(place) for place in range(len(source))] == images[: len(dataset)]
    assert list(source.labels) == dataset["label"][:]
    assert source.classes == CLASSES


def test_what_save_to_disk_writes_is_read(dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "saved", num_shards=3)
    source = open_images(tmp_path / "saved")
    check(source, dataset)
    assert source.keys[4] == "data-00001-of-00003/00000000"
    assert (source.paths[4], source.offsets[4]) == ("data-00001-of-00003.arrow", 0)


def test_what_to_parquet_writes_is_read_and_has_the_same_labels(datasets, dataset, tmp_path):
    dataset.to_parquet(tmp_path / "x.parquet")  # of images that are files it keeps the paths alone
    with pytest.raises(UnsafeFile, match="Save the data set with save_to_disk"):
        open_images(tmp_path / "x.parquet").read(0)
    (tmp_path / "x.parquet").unlink()
    dataset.save_to_disk(tmp_path / "saved")
    dataset = datasets.load_from_disk(tmp_path / "saved")
    dataset.to_parquet(tmp_path / "x.parquet")
    check(open_images(tmp_path / "x.parquet"), dataset)


def test_files_called_as_on_the_hub_are_a_data_set_in_parts(datasets, dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "elsewhere" / "saved")
    dataset = datasets.load_from_disk(tmp_path / "elsewhere" / "saved")
    shutil.move(tmp_path / "elsewhere", tmp_path.with_name(f"{tmp_path.name}-elsewhere"))
    dataset.select(range(9)).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    dataset.select(range(9, 12)).to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    (tmp_path / "thumbnail.png").write_bytes(b"a picture for the page")
    train, val = (open_images(tmp_path, split) for split in ("train", "val"))
    check(train, dataset.select(range(9)))
    assert (len(val), val.split, train.split) == (3, "val", "train")
    assert val.keys[0] == "data/test-00000-of-00001/00000000"
    assert open_images(tmp_path / "data" / "t*.parquet", "val").keys == tuple(key[5:] for key in val.keys)


def test_splits_that_were_saved_together_are_parts(datasets, dataset, tmp_path):
    both = datasets.DatasetDict(train=dataset.select(range(8)), validation=dataset.select(range(8, 12)))
    both.save_to_disk(tmp_path / "both")
    train, val = (open_images(tmp_path / "both", split) for split in ("train", "val"))
    check(train, both["train"])
    assert val.labels == tuple(both["validation"]["label"])


def test_chosen_rows_are_saved_as_they_are(dataset, tmp_path):
    dataset.select([7, 2, 5]).save_to_disk(tmp_path / "some")
    names = list(odd_images(12).values())
    source = open_images(tmp_path / "some")
    assert [source.read(place) for place in range(3)] == [names[7], names[2], names[5]]


def plain(column: str, images: list[bytes], **others) -> pa.Table:
    return pa.table({column: pa.array(images, pa.binary()), **others})


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_plain_columns_of_bytes_are_found_by_name(suffix, tmp_path):
    table = plain("img", [b"a", b"b"], noise=pa.array([b"x", b"y"], pa.binary()), label=["dog", "cat"])
    file = tmp_path / f"x.{suffix}"
    if suffix == "parquet":
        parquet.write_table(table, file)
    else:
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    source = open_images(file)
    assert [source.read(place) for place in range(2)] == [b"a", b"b"]
    assert (source.classes, source.labels) == (("cat", "dog"), (1, 0))
    assert open_images(f"{file}#noise").read(1) == b"y"
    assert open_images(Path(f"{tmp_path}#noise")).read(1) == b"y"
    with pytest.raises(SourceError, match=r"no column 'pixels' of images; it has 'img', 'noise'"):
        open_images(f"{file}#pixels")


def test_numbers_without_names_of_classes_are_labels(tmp_path):
    parquet.write_table(plain("image", [b"a", b"b", b"c"], label=[4, None, -1]), tmp_path / "x.parquet")
    source = open_images(tmp_path)
    assert (source.labels, source.classes) == ((4, -1, -1), ("0", "1", "2", "3", "4"))


def test_several_columns_of_images_are_refused_and_named(tmp_path):
    table = plain("left", [b"a"], right=pa.array([b"b"], pa.binary()))
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(SourceError, match=r"several columns of images: 'left', 'right'. Say which: .*#left"):
        open_images(tmp_path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"text": ["a"]}), "no column of images"),
        (plain("image", []), "have no row"),
        (make_table(odd_images(1)).replace_schema_metadata({"huggingface": "{"}), "metadata that datasets wrote"),
        (make_table(odd_images(1)).set_column(1, "label", pa.array([7])), "the label 7, and there are 2 classes"),
    ],
)
def test_tables_that_say_too_little_or_too_much_are_refused(table, message, tmp_path):
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(SourceError, match=message):
        open_images(tmp_path)


def test_tables_of_two_kinds_are_refused(tmp_path):
    write_parquet(tmp_path / "a.parquet", odd_images(2))
    parquet.write_table(plain("image", [b"a"]), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match="other columns or classes"):
        open_images(tmp_path)
    write_arrow(tmp_path / "b.arrow", odd_images(2))
    (tmp_path / "x.tar").write_bytes(b"")
    with pytest.raises(SourceError, match="has both tables and tars"):
        open_images(tmp_path)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("keep", [0, 1, 100, -1, -9, -200])
def test_a_table_that_was_cut_is_refused(suffix, keep, tmp_path):
    file = tmp_path / f"x.{suffix}"
    {"parquet": write_parquet, "arrow": write_arrow}[suffix](file, odd_images())
    data = file.read_bytes()
    file.write_bytes(data[:keep])
    with pytest.raises(SourceError, match=rf"x\.{suffix}"):
        open_images(file)


def with_paths(folder: Path, paths: list[str | None]) -> Path:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    folder.mkdir()
    rows = [{"bytes": None, "path": path} for path in paths]
    parquet.write_table(pa.table({"image": pa.array(rows, kind)}), folder / "x.parquet")
    return folder


def test_a_path_in_place_of_bytes_is_followed_within_the_folder_alone(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    inside = ["sub/a.png", None, str(tmp_path / "set" / "sub" / "a.png")]
    outside = [
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "https://example.org/a.png",
        "zip://a::b",
        ".",
    ]
    folder = with_paths(tmp_path / "set", inside + outside)
    (folder / "sub").mkdir()
    (folder / "sub" / "a.png").write_bytes(b"a")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    source = open_images(folder / "x.parquet")
    assert [source.read(place) for place in range(3)] == [b"a", b"", b"a"]
    for place in range(3, len(source)):
        with pytest.raises(UnsafeFile, match=r"row \d has no image but a path"):
            source.read(place)


@pytest.mark.parametrize("name", ["../x.arrow", "/x.arrow", "a/../../x.arrow"])
def test_a_saved_state_that_names_files_elsewhere_is_refused(name, tmp_path):
    write_arrow(tmp_path / "x.arrow", odd_images(2))
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "dataset_info.json").write_text("{}")
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(UnsafeFile, match="leads out of it"):
        open_images(saved)
    shutil.rmtree(saved)
    saved.mkdir()
    (saved / "dataset_dict.json").write_text(json.dumps({"splits": [name]}))
    with pytest.raises(UnsafeFile, match="leads out of it"):
        open_images(saved)


@pytest.mark.parametrize("text", ["", "[]", '{"_data_files": 3}', '{"_data_files": [{}]}', '{"_data_files": []}'])
def test_a_damaged_state_is_refused(text, tmp_path):
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(SourceError, match=r"state\.json"):
        open_images(tmp_path)


def test_neighbours_of_a_row_are_not_read_again(tmp_path):
    """A row is found by reading its group, and the groups used last are kept."""
    images = odd_images(40)
    source = open_images(write_parquet(tmp_path / "x.parquet", images, row_group_size=10))
    first = source.read(0)
    table = source.reader._tables.of("x.parquet")
    calls = []
    read = table._file.read_row_group
    table._file.read_row_group = lambda *rest, **more: calls.append(rest[0]) or read(*rest, **more)
    again = [source.read(place) for place in range(40)]
    assert again[0] == first
    assert again == list(images.values())
    assert calls == [1, 2, 3]
