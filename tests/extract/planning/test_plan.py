"""What is foretold of an extraction: bytes and files as the store then has them, refusals, and nothing written."""

import dataclasses
import json
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from caev2.errors import SourceError
from caev2.extract.planning.estimate import Rates, estimate
from caev2.extract.planning.plan import plan
from caev2.extract.planning.sample import SAMPLE_IMAGES, choose_sample, draw_sample
from caev2.extract.run import extract
from caev2.store.images import open_images
from caev2.store.layout import codes_path, small_arrays
from caev2.store.manifest import read_manifest
from tests.commands.invoking import caev2, refusal
from tests.made_up import EXTRACT, PatchMeans, make_photographs


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Ninety pictures of several sizes, with more and less in them; one in thirty is damaged."""
    folder, random = tmp_path_factory.mktemp("plan") / "images", np.random.default_rng(0)
    folder.mkdir()
    for number in range(90):
        coarse = random.integers(0, 255, (2 + number % 13, 3 + number % 7, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((70 + number, 90), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:03d}.jpg")
        if number % 30 == 7:
            (folder / f"{number:03d}.jpg").write_bytes(b"no image at all")
    return folder


@pytest.fixture(autouse=True)
def _moments(monkeypatch):
    """No test looks at a rate, so none is measured for long."""
    monkeypatch.setattr("caev2.extract.planning.measure._MEASURED_S", 0.3)
    monkeypatch.setattr("caev2.extract.planning.measure._ENCODED_S", 0.1)
    monkeypatch.setattr("caev2.extract.planning.measure._WRITTEN_S", 0.1)


def demo_size(codec="float16", layout="zarr", crops=None):
    return ("--recipe", "demo", "--codec", codec, "--layout", layout, "--crops", crops or "none", "--set", "block_images=32",
            "--set", "teacher_batch=16", "--quiet", "--device", "cpu")  # fmt: skip


def sizes_of(store):
    return {path.relative_to(store).as_posix(): path.stat().st_size for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize("crops", [None, "jpeg", "raw"])
@pytest.mark.parametrize("layout", ["zarr", "webdataset"])
@pytest.mark.parametrize("codec", ["float16", "lloyd4"])
def test_bytes_and_files_are_those_of_the_store_that_is_then_made(images, tmp_path, codec, layout, crops):
    options = demo_size(codec, layout, crops)
    told = json.loads(caev2("extract", images, tmp_path / "store", *options, "--dry-run", "--json").stdout)
    assert not (tmp_path / "store").exists()
    assert caev2("extract", images, tmp_path / "store", *options).exit_code == 0
    sizes = sizes_of(tmp_path / "store")
    assert told["files"] == len(sizes)
    assert told["bytes"] == pytest.approx(sum(sizes.values()), rel=0.03)
    parts = {name: told[f"{name}_bytes"] for name in ("codes", "crops", "views", "records")}
    assert sum(parts.values()) == told["bytes"]
    if layout == "zarr":
        shards = [size for path, size in sizes.items() if path.startswith(codes_path("projected") + "/c/")]
        assert (parts["codes"], told["row_files"]) == (sum(shards), len(shards) * (1 if crops is None else 2))
        crop_files = [size for path, size in sizes.items() if path.startswith("crops/data/")]
        assert parts["crops"] == pytest.approx(sum(crop_files), rel=0.05)
        small = tuple(f"{array}/c/" for array in small_arrays(read_manifest(tmp_path / "store")))
        assert parts["views"] == sum(size for path, size in sizes.items() if path.startswith(small))


def test_what_is_left_to_write_is_told_of_a_store_that_was_interrupted(images, tmp_path):
    options = demo_size("lloyd4")
    assert caev2("extract", images, tmp_path / "store", *options).exit_code == 0
    (tmp_path / "store/units/000001.json").unlink()
    before = sizes_of(tmp_path / "store")
    told = json.loads(caev2("extract", images, tmp_path / "store", *options, "--dry-run", "--json").stdout)
    assert (told["rows"], told["missing_rows"], told["calibration_rows"]) == (180, 64, 0)
    assert told["missing_bytes"] == told["bytes"] * 64 // 180
    assert sizes_of(tmp_path / "store") == before


def test_a_dry_run_tells_the_same_of_the_same_images_and_leaves_nothing(images, tmp_path):
    told = [
        json.loads(
            caev2("extract", images, tmp_path / "a/b/store", *demo_size(crops="jpeg"), "--dry-run", "--json").stdout
        )
        for _ in range(2)
    ]
    assert list(tmp_path.iterdir()) == []
    of_time = {"free_bytes", "rows_per_s", "cores_needed", "limit", "write_bytes_per_s_needed"}
    of_time |= {name for name in told[0] if "_per_s" in name or "_s_per_" in name or name.startswith("hours")}
    assert {name: told[0][name] for name in told[0].keys() - of_time} == {
        name: told[1][name] for name in told[1].keys() - of_time
    }
    assert told[0]["sample_images"] == SAMPLE_IMAGES
    assert told[0]["undecodable_share"] == len(told[0]["undecodable"]) / SAMPLE_IMAGES
    assert {key for key, _ in told[0]["undecodable"]} <= {"007.jpg", "037.jpg", "067.jpg"}
    assert 0 < told[0]["hours"] == told[0]["hours_1_device"] == pytest.approx(8 * told[0]["hours_8_devices"], rel=1)


def test_people_are_told_what_machines_are(images, tmp_path):
    said = caev2("extract", images, tmp_path / "store", *demo_size("int8"), "--dry-run").stdout
    for words in (
        "180: 90 images x 2 views, int8",
        "90 rows",
        "rows/s a core",
        "8 such devices",
        "no known image format",
    ):
        assert words in said
    assert "on a GPU          not measured" in said


def test_a_store_that_cannot_fit_is_refused_by_its_plan(images, tmp_path, monkeypatch):
    monkeypatch.setattr("caev2.extract.planning.plan.free_bytes", lambda place: 100_000)
    assert "would take 3.1 MB, and 100.0 kB are free" in refusal(
        "extract", images, tmp_path / "store", *demo_size(), "--dry-run"
    )
    assert list(tmp_path.iterdir()) == []


def test_images_of_which_not_one_can_be_used_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(b"")
    with pytest.raises(SourceError, match=r"None of 3 images of .* that were tried can be used. The first: 0.jpg: "):
        estimate(open_images(tmp_path / "images"), tmp_path / "store", EXTRACT, PatchMeans(), device="cpu")


def test_more_undecodable_images_than_are_allowed_are_told_before_the_work(images, tmp_path):
    warned = caev2("extract", images, tmp_path / "store", *demo_size(), "--set", "max_failed=0.001", "--dry-run").stderr
    assert "of 64 images of the sample cannot be used, more than the allowed share of 0.001" in warned


def test_the_size_of_kept_jpegs_is_that_of_these_images_also_where_nobody_drew_a_sample(images, tmp_path):
    recipe = dataclasses.replace(EXTRACT, crops="jpeg")
    source = open_images(images)
    told = plan(source, tmp_path / "store", recipe, PatchMeans()).crops_bytes
    extract(source, tmp_path / "store", recipe, teacher=PatchMeans())
    kept = sum(size for path, size in sizes_of(tmp_path / "store").items() if path.startswith("crops/data/"))
    assert told == pytest.approx(kept, rel=0.1)


def test_a_disk_that_is_full_is_not_written_to_and_a_plan_without_its_rate_is_made(images, tmp_path, monkeypatch):
    monkeypatch.setattr("caev2.extract.planning.measure.free_bytes", lambda place: 1_000_000)
    found = estimate(open_images(images), tmp_path / "store", EXTRACT, PatchMeans(), device="cpu")
    assert found.write_bytes_per_s is None
    assert found.rates.limit in ("teacher", "decode")
    assert found.hours() > 0


class Overflowing(PatchMeans):
    """Its latents are beyond float16."""

    def tokens(self, images, taps):
        return {tap: rows * 1e6 for tap, rows in super().tokens(images, taps).items()}


def test_latents_that_cannot_be_stored_leave_the_codec_unmeasured(images, tmp_path):
    found = estimate(open_images(images), tmp_path / "store", EXTRACT, Overflowing(), device="cpu")
    assert found.encode_rows_per_s_per_core is None


@given(count=st.integers(1, 500), wanted=st.integers(1, 80))
def test_a_sample_takes_one_image_of_every_stretch(count, wanted):
    keys = [f"{number:05d}" for number in range(count)]
    chosen, parts = choose_sample(keys, wanted), min(wanted, count)
    assert [number * parts // count if count % parts == 0 else None for number in chosen] == (
        list(range(parts)) if count % parts == 0 else [None] * parts
    )
    assert sorted(set(chosen)) == chosen
    assert 0 <= chosen[0] < -(-count // parts)
    assert max(np.diff(chosen), default=1) < 2 * math.ceil(count / parts)


def test_an_image_of_a_sample_is_prepared_as_any_other(images):
    source = open_images(images)
    sample = draw_sample(source, EXTRACT, count=5)
    assert sample.source.keys == tuple(source.keys[number] for number in choose_sample(source.keys, 5))
    assert [image.facts.bytes for image in sample.images] == [
        len(source.read(source.keys.index(key))) for key in sample.source.keys
    ]


def rates(**changes):
    sound = {
        "teacher_rows_per_s": 1000.0,
        "host_s_per_row": 0.01,
        "disk_rows_per_s": math.inf,
        "cores": 16,
        "on_gpu": True,
    }
    return Rates(**{**sound, **changes})


@pytest.mark.parametrize(
    ("changes", "rate", "limit"),
    [
        ({}, 1000, "teacher"),
        ({"cores": 9}, 800, "decode"),
        ({"disk_rows_per_s": 300.0}, 300, "disk"),
        ({"on_gpu": False, "teacher_rows_per_s": 1600.0}, 800, "teacher"),
        ({"on_gpu": False, "teacher_rows_per_s": 100.0, "cores": 1}, 50, "teacher"),
        ({"on_gpu": False, "teacher_rows_per_s": 300.0, "cores": 1}, 75, "decode"),
    ],
    ids=["teacher", "decode", "disk", "shared cores", "one core", "one core, quick teacher"],
)
def test_the_slowest_part_is_the_limit(changes, rate, limit):
    assert rates(**changes).rows_per_s == pytest.approx(rate)
    assert rates(**changes).limit == limit


def test_cores_needed_are_those_that_decode_as_fast_as_the_teacher_computes():
    assert rates().cores_needed == 10
    assert rates(cores=11).limit == "teacher"
    assert rates(cores=10).limit == "decode"  # one of them feeds the device
    assert rates(cores=1).rows_per_s_of(8) == 8000
    assert rates(disk_rows_per_s=2500.0).rows_per_s_of(8) == 2500


def test_what_is_no_file_is_undecodable_in_a_sample_too(tmp_path):
    make_photographs(tmp_path / "images", 4)
    (tmp_path / "images/class-0/pipe.png").symlink_to(tmp_path / "nowhere")
    sample = draw_sample(open_images(tmp_path / "images"), EXTRACT)
    assert [key for key, _ in sample.failures] == ["class-0/pipe.png"]
    assert len(sample.decoded) == 4


class Slow(PatchMeans):
    """Twenty views a second."""

    def tokens(self, images, taps):
        time.sleep(len(images) / 20)
        return super().tokens(images, taps)


def test_a_teacher_that_is_slow_on_a_cpu_is_timed_with_fewer_views_at_once(images, tmp_path):
    recipe = dataclasses.replace(EXTRACT, teacher_batch=1000)
    found = estimate(open_images(images), tmp_path / "store", recipe, Slow(), device="cpu")
    assert 3 <= found.views_at_once <= 6
    assert 5 < found.rates.teacher_rows_per_s <= 20


def test_of_a_source_that_is_read_from_its_beginning_the_beginning_is_the_sample(images):
    source = dataclasses.replace(open_images(images), seekable=False)
    assert draw_sample(source, EXTRACT, count=5).source.keys == source.keys[:5]


def test_options_that_an_extraction_refuses_are_refused_by_its_plan(images, tmp_path):
    assert "--part is 'x'" in refusal("extract", images, tmp_path / "s", *demo_size(), "--part", "x", "--dry-run")
    assert "contradict" in refusal("extract", images, tmp_path / "s", *demo_size(), "--gpus", "2", "--dry-run")


@pytest.mark.gpu
@pytest.mark.parametrize("codec", ["float16", "lloyd4", "klt"])
def test_a_gpu_is_timed_with_the_encoding_that_it_does_itself(images, tmp_path, codec):
    options = [*demo_size(codec)[:-1], "cuda"]
    told = json.loads(caev2("extract", images, tmp_path / "store", *options, "--dry-run", "--json").stdout)
    assert told["encoded_on_device"] == (codec != "klt")
    assert (told["encode_rows_per_s_per_core"] is None) == (codec != "klt")
    assert told["hours"] >= told["hours_1_device"] > 0
