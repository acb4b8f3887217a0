"""`caev2 probe`: one table of a run, its own start and its teacher, and what is written beside the run."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from caev2.extract.teachers import shipped
from caev2.extract.teachers.catalog import load_teacher
from caev2.pretrain.identity import read_identity
from caev2.pretrain.weights.checkpoint import latest_checkpoint
from caev2.store.images import open_images
from caev2.store.manifest import read_manifest
from tests.commands.invoking import EXTRACT, PRETRAIN, caev2, files_of, refusal

KNN = ("--kind", "knn", "--quiet", "--device", "cpu")


def ask(*arguments) -> dict:
    """The result as JSON."""
    result = caev2("probe", *arguments, *KNN, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def names(found: dict) -> list[str]:
    return [one["name"] for one in found["subjects"]]


@pytest.fixture
def other_teacher(tmp_path):
    """The demo teacher with one number changed: the same architecture, another identity."""
    with safe_open(shipped._WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
    weights = load_file(shipped._WEIGHTS)
    weights[min(weights)].view(-1)[0] += 1
    save_file(weights, tmp_path / "other.safetensors", metadata)
    return tmp_path / "other.safetensors"


def test_a_run_is_shown_beside_its_own_start_and_the_teacher_of_its_store(made, run, images):
    found = ask(run, images)
    assert names(found) == ["random start", "student", "teacher demo"]
    assert [one["not_available"] for one in found["subjects"]] == [None] * 3
    assert found["subjects"][2]["sha256"] == load_teacher("demo").description.sha256
    said = caev2("probe", run, images, "--quiet", "--device", "cpu").stdout
    assert re.search(r"features .* knn .* linear", said)
    for name in names(found):
        assert re.search(rf"│ {name} +│ +[\d.]+ \([\d.]+-[\d.]+\) │ +[\d.]+ \([\d.]+-[\d.]+\) │", said), said


def test_the_result_says_what_was_judged_on_what(made, run, images):
    printed = ask(run, images)
    written = json.loads((run / "result.json").read_text())
    assert written == printed
    manifest, identity = read_manifest(made / "store"), read_identity(run)
    facts = written["run"]
    assert (facts["fingerprint"], facts["step"]) == (identity.fingerprint(), 4)
    assert facts["store_fingerprint"] == manifest.spec.fingerprint()
    assert facts["store_digest"] == manifest.root_digest
    assert facts["target"]["teacher"]["sha256"] == load_teacher("demo").description.sha256
    assert written["train_digest"] == open_images(images, "train").digest()
    assert written["val_digest"] == open_images(images, "val").digest()
    assert written["classes"] == ["class-0", "class-1"]
    for one in written["subjects"]:
        assert set(one["accuracy"]["knn"]) == {"value", "low", "high"}
        assert one["protocol"]["knn"] == {"pooling": "class", "k": 10, "temperature": 0.07}
    before = facts["checkpoint_sha256"]
    checkpoint = latest_checkpoint(run / "checkpoints").path
    checkpoint.rename(checkpoint.with_name("step-000000005.safetensors"))
    assert ask(run, images)["run"]["checkpoint_sha256"] == before


def test_neighbours_and_their_temperature_are_options(run, images):
    found = ask(run, images, "--only", "--k", "3", "--temperature", "0.5")
    assert found["subjects"][0]["protocol"]["knn"] == {"pooling": "class", "k": 3, "temperature": 0.5}
    assert found["settings"] == {"knn": {"k": 3, "temperature": 0.5}}
    ask(run, images, "--only")
    assert len(list((run / "results").iterdir())) == 2
    assert "cannot ask k = 11 of 10 train images" in refusal("probe", run, images, *KNN, "--k", "11")
    assert "is about the linear probe" in refusal("probe", run, images, *KNN, "--protocol", "official")
    assert "0 is not in the range" in refusal("probe", run, images, *KNN, "--resize", "0")
    assert "temperature of kNN is 0.0" in refusal("probe", run, images, *KNN, "--temperature", "0")


def test_few_shot_probes_have_a_column_for_each_number_of_images(run, images):
    few = ("--kind", "few-shot", "--quiet", "--device", "cpu", "--shots", "1", "--shots", "4")
    result = caev2("probe", run, images, *few, "--draws", "3", "--only", "--json")
    (student,) = json.loads(result.stdout)["subjects"]
    assert list(student["accuracy"]) == ["1-shot", "4-shot"]
    assert student["accuracy"]["1-shot"]["value"] == pytest.approx(sum(student["draws"]["1-shot"]) / 3)
    protocol = student["protocol"]["4-shot"]
    assert (protocol["pooling"], protocol["shots"], protocol["draws"]) == ("class", 4, 3)
    assert len(protocol["penalties"]) == 8
    assert "± one deviation of draws" in caev2("probe", run, images, *few, "--only").stdout
    said = refusal("probe", run, images, *few[:5])
    assert "Class 0 has 5 train images, fewer than the 10 of a few-shot probe. Give --shots 5 or less" in said


def test_numbers_of_each_class_and_intervals_of_two_kinds_stand_beside_the_accuracy(run, images):
    (student,) = ask(run, images, "--only")["subjects"]
    share, value = student["per_class"]["knn"], student["accuracy"]["knn"]["value"]
    assert sum(share) / 2 == pytest.approx(value)
    assert student["bootstrap"]["knn"]["value"] == value
    assert set(student["effective_rank"]) >= {"class", "mean"}
    assert 1 < student["effective_rank"]["mean"] < 10


def test_features_are_kept_in_the_run_and_used_again(run, images, tmp_path):
    first = ask(run, images)
    kept = {path: path.stat().st_mtime_ns for path in (run / "features").rglob("*.safetensors")}
    assert len(kept) == 6  # of three subjects, train and val
    assert ask(run, images) == first
    assert {path: path.stat().st_mtime_ns for path in (run / "features").rglob("*.safetensors")} == kept
    shutil.rmtree(run / "features")
    assert ask(run, images, "--no-cache") == first
    assert not (run / "features").exists()
    assert ask(run, images, "--cache", tmp_path / "elsewhere") == first
    assert len(list((tmp_path / "elsewhere").iterdir())) == 6


def test_an_attentive_probe_is_a_column_like_any_other(run, images):
    attentive = ("--kind", "attentive", "--quiet", "--device", "cpu", "--epochs", "2", "--only")
    result = caev2("probe", run, images, *attentive, "--json")
    (student,) = json.loads(result.stdout)["subjects"]
    assert list(student["accuracy"]) == ["attentive"]
    protocol = student["protocol"]["attentive"]
    assert (protocol["pooling"], protocol["epochs"]) == ("cross-attention", 2)
    assert set(protocol["held_out_accuracy"]) == {"0.4", "0.1", "0.025"}
    assert "take 31.2 kB of memory" in refusal("probe", run, images, *attentive, "--token-gb", "1e-6", "--no-cache")


def test_pixels_have_no_tokens_and_so_no_number_of_the_probe_that_looks_at_them(run, images):
    attentive = ("--kind", "knn", "--kind", "attentive", "--quiet", "--device", "cpu", "--epochs", "2", "--only")
    result = caev2("probe", run, images, *attentive, "--pixels", "8", "--json")
    pixels, student = json.loads(result.stdout)["subjects"]
    assert list(pixels["accuracy"]) == ["knn"]
    assert list(student["accuracy"]) == ["knn", "attentive"]
    assert re.search(
        r"│ pixels +│ +[\d.]+ \([\d.]+-[\d.]+\) │ +no tokens │",
        caev2("probe", run, images, *attentive, "--pixels", "8").stdout,
    )


def test_the_published_protocol_is_a_column_or_takes_the_place_of_the_linear_one(run, images):
    words = ("--quiet", "--device", "cpu", "--only", "--epochs", "2", "--base-lr", "1", "--json")
    for named, columns in (
        (("--kind", "official-linear", "--kind", "knn"), ["official linear", "knn"]),
        (("--protocol", "official"), ["knn", "official linear"]),
        (("--protocol", "official", "--kind", "linear", "--kind", "official-linear"), ["official linear"]),
    ):
        (student,) = json.loads(caev2("probe", run, images, *words, *named).stdout)["subjects"]
        assert list(student["accuracy"]) == columns
        protocol = student["protocol"]["official linear"]
        assert (protocol["protocol"], protocol["epochs"], protocol["batch_size"]) == ("official", 2, 10)
        assert protocol["lr"] == pytest.approx(10 / 256)
        assert "chosen on the reported split" in protocol["highest"]["note"]
    assert len(list((run / "features").glob("official-linear-*.safetensors"))) == 1
    said = refusal("probe", run, images, *words, "--protocol", "official", "--batch-size", "11")
    assert "cannot have 11 of 10 train images" in said


def test_lines_are_added_and_the_run_may_stand_alone(run, images):
    more = ask(run, images, "--pixels", "8", "--random-init", "demo")
    assert names(more) == ["pixels", "random start of demo", "random start", "student", "teacher demo"]
    assert names(ask(run, images, "--only")) == ["student"]
    assert names(ask(run, images, "--only", "--pixels", "8")) == ["pixels", "student"]
    assert len(list((run / "results").iterdir())) == 3


def test_without_a_run_the_options_make_the_table_and_nothing_is_written(images):
    before = files_of(images)
    found = ask("--pixels", "8", "--teacher", "demo", images)
    assert names(found) == ["pixels", "teacher demo"]
    assert found["run"] is None
    assert files_of(images) == before
    assert "--only leaves out what belongs to a run" in refusal("probe", "--pixels", "8", "--only", images)


def test_a_named_teacher_that_is_the_stores_has_one_line(run, images, tmp_path):
    copy = shutil.copy(shipped._WEIGHTS, tmp_path / "copy.safetensors")
    assert names(ask(run, images, "--teacher", f"demo@{copy}")) == ["random start", "student", "teacher demo"]


def test_a_named_teacher_that_is_not_the_stores_has_a_line_of_its_own(run, images, other_teacher):
    found = ask(run, images, "--teacher", f"demo@{other_teacher}")
    assert names(found)[2:] == ["teacher demo", f"teacher demo@{other_teacher}"]
    own, named = found["subjects"][2:]
    assert own["sha256"] == load_teacher("demo").description.sha256
    assert own["sha256"] != named["sha256"]


def test_another_teacher_under_the_same_name_is_not_taken_for_the_stores(run, images, other_teacher, monkeypatch):
    monkeypatch.setattr(shipped, "_WEIGHTS", other_teacher)
    teacher = ask(run, images)["subjects"][2]
    assert "demo has other weights: sha256" in teacher["not_available"]
    assert teacher["accuracy"] == {}


def test_a_teacher_that_cannot_be_loaded_is_a_line_that_says_why(run, images, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "_WEIGHTS", tmp_path / "gone.safetensors")
    result = caev2("probe", run, images, *KNN)
    assert result.exit_code == 0, result.output
    said = " ".join(re.sub(r"[│┃]", " ", result.stdout).split())
    assert "teacher demo: not available (The demo teacher's weights are missing at" in said
    assert "student" in said
    assert "weights are missing" in refusal("probe", "--teacher", "demo", images, *KNN)


@pytest.mark.parametrize("orientation", ["exif", "ignore"])
def test_images_lie_as_they_lay_when_the_store_was_made(tmp_path, images, orientation):
    """Classes differ only in where a bright bar lies, and EXIF turns those of `val` by 90 degrees."""
    store, run, bars = tmp_path / "store", tmp_path / "run", tmp_path / "bars"
    caev2("extract", images, store, *EXTRACT, "--set", f"views.orientation={orientation}")
    assert caev2("pretrain", store, run, "--images", images, *PRETRAIN).exit_code == 0
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 8)):
        for number in range(count):
            pixels = random.integers(0, 40, (64, 64, 3), dtype=np.uint8)
            across = number % 2 == 0
            pixels[(slice(0, 20) if across else slice(None)), (slice(None) if across else slice(0, 20))] += 200
            exif = Image.Exif()
            exif[0x0112] = 6 if split == "val" else 1
            folder = bars / split / ("across" if across else "down")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}.png", exif=exif)
    found = ask(run, bars, "--pixels", "64", "--resize", "64")
    assert found["orientation"] == orientation
    # turned by 90 degrees clockwise, a bar across the top lies down the right, one down the left across the top
    assert found["subjects"][0]["accuracy"]["knn"]["value"] == {"ignore": 1.0, "exif": 0.5}[orientation]
