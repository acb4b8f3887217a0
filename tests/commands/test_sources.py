"""Every kind of source from end to end: extracted, compared, trained on, judged; and parts of sources."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from caev2.store.index import read_index
from caev2.store.reader import Store
from tests.commands.invoking import EXTRACT, caev2, files_of, make_images, refusal, train
from tests.store.sources.written import odd_images, write_files, write_list, write_tar, write_webdataset

VERIFY = ("--json", "--device", "cpu", "--quiet")


def use(images: Path, at: Path) -> Path:
    """Extract, compare every view's pixels, train to the end; the store."""
    done = caev2("extract", images, at / "store", *EXTRACT, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["failures"] == []
    again = caev2("extract", images, at / "store", *EXTRACT, "--json")
    assert json.loads(again.stdout)["rows_computed"] == 0
    verified = caev2("store", "verify", at / "store", "--images", images, *VERIFY)
    assert verified.exit_code == 0, verified.output
    trained = caev2(*train(at / "store", at / "run", images))
    assert trained.exit_code == 0, trained.output
    return at / "store"


def rows_of(store: Path) -> dict[str, bytes]:
    """Everything but which file an image lies in, and what counts it."""
    return {name: data for name, data in files_of(store).items() if name not in ("index.parquet", "manifest.json")}


def test_tars_give_the_bytes_of_the_folders_they_unpack_to(tmp_path):
    """By webdataset's own writer, with odd names: pixels, crop hashes and targets of a folder with equal keys."""
    images = odd_images()
    names = sorted(images)
    for number, some in enumerate((names[::2], names[1::2])):
        pictures = {name: images[name] for name in some}
        write_files(tmp_path / "folder" / str(number), {f"{name}.png": data for name, data in pictures.items()})
        file = write_webdataset(tmp_path / "tars" / f"{number}.tar", pictures)
        labels = {f"{name}.cls": str(number).encode() for name in some}
        write_tar(file, {**{f"{name}.png": data for name, data in pictures.items()}, **labels})
    stores = [use(tmp_path / kind, tmp_path / f"of {kind}") for kind in ("folder", "tars")]
    assert rows_of(stores[0]) == rows_of(stores[1])
    index = read_index(stores[1])
    for container, offset, size, key in zip(
        *(index[name] for name in ("container", "offset", "bytes", "key")), strict=True
    ):
        data = (tmp_path / "tars" / container).read_bytes()[offset : offset + size]
        assert data == images[key.partition("/")[2].removesuffix(".png")]


def test_tables_give_the_bytes_of_a_list_with_equal_keys(tmp_path):
    images = list(odd_images().values())
    write_files(tmp_path / "x", {f"{row:08d}": data for row, data in enumerate(images)})
    lines = [f"x/{row:08d}\t{row % 2}" for row in range(len(images))]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    table = pa.table({"png": pa.array(images, pa.binary()), "label": [row % 2 for row in range(len(images))]})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=4)
    stores = [use(tmp_path / name, tmp_path / f"of {name}") for name in ("list.txt", "x.parquet")]
    assert rows_of(stores[0]) == rows_of(stores[1])
    index = read_index(stores[1])
    assert (index["container"][3], index["offset"]) == ("x.parquet", list(range(len(images))))


def test_what_webdataset_writes_extracts_and_trains(tmp_path):
    images = odd_images(20)
    for number in range(2):
        some = dict(list(images.items())[number::2])
        write_webdataset(tmp_path / "shards" / f"{number:06d}.tar", some)
    store = use(tmp_path / "shards" / "{000000..000001}.tar", tmp_path)
    assert len(Store(store)) == 20
    assert Store(store).manifest.classes == ("0", "1")


def test_what_datasets_writes_extracts_trains_and_is_judged(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "HF_HOME", str(tmp_path / "hub"))
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    folder = make_images(tmp_path / "images")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["class-0", "class-1"])}
    )
    splits = {}
    for split in ("train", "val"):
        files = sorted((folder / split).rglob("*.png"))
        rows = {"image": [str(file) for file in files], "label": [int(file.parent.name[-1]) for file in files]}
        splits[split] = datasets.Dataset.from_dict(rows, features=features)
    both = datasets.DatasetDict(splits)
    both.save_to_disk(tmp_path / "saved")
    loaded = datasets.load_from_disk(tmp_path / "saved")
    for split, name in (("train", "train"), ("val", "validation")):
        loaded[split].to_parquet(tmp_path / "hub-like" / "data" / f"{name}-00000-of-00001.parquet")
    judged = []
    for kind in ("saved", "hub-like", "images"):
        if kind != "images":
            use(tmp_path / kind, tmp_path / f"of {kind}")
        probed = caev2(
            "probe", "--pixels", "8", tmp_path / kind, "--kind", "knn", "--device", "cpu", "--quiet", "--json"
        )
        assert probed.exit_code == 0, probed.output
        judged.append(json.loads(probed.stdout)["subjects"][0]["accuracy"])
    assert judged[0] == judged[1] == judged[2]


def test_tars_with_labels_are_judged_as_the_folder(tmp_path):
    folder = make_images(tmp_path / "images")
    for split in ("train", "val"):
        members = {}
        for file in sorted((folder / split).rglob("*.png")):
            members |= {file.name: file.read_bytes(), f"{file.stem}.cls": file.parent.name[-1].encode()}
        write_tar(tmp_path / "tars" / f"set-{split}-000.tar", members)
    judged = [
        json.loads(caev2("probe", "--pixels", "8", images, "--device", "cpu", "--quiet", "--json").stdout)["subjects"]
        for images in (folder, tmp_path / "tars")
    ]
    assert judged[0][0]["accuracy"] == judged[1][0]["accuracy"]
    members.pop("0.cls")
    write_tar(tmp_path / "tars" / "set-val-000.tar", members)
    said = refusal("probe", "--pixels", "8", tmp_path / "tars", "--device", "cpu", "--quiet")
    assert "'set-val-000/0.png' in " in said
    assert "has no label" in said
    assert "there is no" in refusal(
        "probe", "--pixels", "8", tmp_path / "tars" / "set-train-000.tar", "--device", "cpu"
    )


def test_a_compressed_tar_extracts_but_trains_from_kept_crops_alone(tmp_path):
    tar = write_tar(tmp_path / "x.tar.gz", {f"{name}.png": data for name, data in odd_images().items()}, "w:gz")
    assert caev2("extract", tar, tmp_path / "store", *EXTRACT).exit_code == 0
    assert caev2("store", "verify", tmp_path / "store", "--images", tar, *VERIFY).exit_code == 0
    said = refusal(*train(tmp_path / "store", tmp_path / "run", tar))
    assert "compressed tar" in said
    assert "--crops jpeg" in said
    assert not (tmp_path / "run").exists()
    assert caev2("extract", tar, tmp_path / "kept", *EXTRACT, "--crops", "jpeg").exit_code == 0
    assert caev2(*train(tmp_path / "kept", tmp_path / "run", tar)).exit_code == 0


def test_hostile_sources_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "x.tar", {"../a.png": b"x"})
    assert "leads out of the tar" in refusal("extract", "x.tar", "store", *EXTRACT)
    assert "asks to run a command" in refusal("extract", "pipe:touch canary", "store", *EXTRACT)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


# parts


@pytest.fixture(scope="module")
def twenty(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("twenty") / "images"
    images = odd_images(20)
    for number, (name, data) in enumerate(images.items()):
        write_files(folder / ("ant", "bee")[number % 2], {f"{name}.png": data})
    return folder


PARTS = (
    ("--limit", "7"),
    ("--sample", "0.4", "--seed", "3"),
    ("--classes", "bee"),
    ("--classes", "bee", "--limit", "5"),
)


@pytest.mark.parametrize("part", PARTS, ids=" ".join)
def test_a_store_of_a_part_is_resumed_trained_and_extended_with_the_whole(part, twenty, tmp_path):
    at = tmp_path / "store"
    assert caev2("extract", twenty, at, *EXTRACT, *part).exit_code == 0
    before = files_of(at)
    shutil.rmtree(at / "targets" / "projected" / "codes" / "c" / "0" / "0")  # what a lost disk leaves is made anew
    (at / "units" / "000000.json").unlink()
    assert caev2("extract", twenty, at, *EXTRACT, *part).exit_code == 0
    assert files_of(at) == before
    for name in Store(at).keys:
        assert name.startswith("bee/" if "--classes" in part else ("ant/", "bee/"))
    assert Store(at).manifest.classes == (("bee",) if "--classes" in part else ("ant", "bee"))
    assert caev2("store", "verify", at, "--images", twenty, *VERIFY).exit_code == 0
    assert caev2(*train(at, tmp_path / "run", twenty)).exit_code == 0
    grown = caev2(
        "store", "extend", at, "--images", twenty, "--views", "3", "--device", "cpu", "--quiet", "--workers", "0"
    )
    assert grown.exit_code == 0, grown.output


def test_another_part_is_another_store(twenty, tmp_path):
    assert caev2("extract", twenty, tmp_path / "store", *EXTRACT, "--limit", "6").exit_code == 0
    before = files_of(tmp_path / "store")
    for part in (("--limit", "7"), ("--limit", "6", "--seed", "1"), ()):
        assert "images" in refusal("extract", twenty, tmp_path / "store", *EXTRACT, *part)
    assert files_of(tmp_path / "store") == before
    assert "There is no class called 'wasp'" in refusal(
        "extract", twenty, tmp_path / "x", *EXTRACT, "--classes", "wasp"
    )
    assert "share above 0" in refusal("extract", twenty, tmp_path / "x", *EXTRACT, "--sample", "2")
    assert not (tmp_path / "x").exists()


def test_a_part_of_tars_and_lists_is_read_at_its_places(tmp_path):
    tar = write_webdataset(tmp_path / "x.tar", odd_images())
    listed = write_list(tmp_path / "y.txt", odd_images())
    for images in (tar, listed):
        at = tmp_path / images.stem
        assert caev2("extract", images, at / "store", *EXTRACT, "--sample", "0.5").exit_code == 0
        assert len(Store(at / "store")) == 5
        assert caev2(*train(at / "store", at / "run", images)).exit_code == 0
