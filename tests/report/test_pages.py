"""The page: everything that was found is on it, nothing of the machine, and nothing that would be fetched."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from caev2.ablate.outcome import read_outcome, write_outcome
from caev2.errors import ConfigError
from caev2.eval.result import save_result
from caev2.pretrain.identity import read_identity
from caev2.report.run import report
from tests.report.made_up import STEPS, facts_of, make_picture, make_run, probe_result
from tests.report.reading_pages import HOSTILE, Page, page_of

SECTIONS = ["summary", "curves", "probes", "ablations", "pictures", "store", "provenance", "environment", "reproduce"]
HIDDEN = "/home" + "/alice"


def test_every_section_is_there_filled_and_in_the_navigation(made, tmp_path):
    result = report([made / "scenes", made / "study"], tmp_path / "page.html")
    assert result.sections == dict.fromkeys(SECTIONS, True)
    page = Page((tmp_path / "page.html").read_bytes())
    assert list(page.by_id) == SECTIONS
    links = [link["href"] for link in page.tags("a")]
    assert links[1:] == [f"#{name}" for name in SECTIONS]


def test_the_numbers_of_the_files_are_on_the_page(made, tmp_path):
    page = page_of(made / "scenes", made / "study", out=tmp_path / "page.html")
    assert "87.7" in page.by_id["summary"]
    assert "6,000 images in 2 views" in page.by_id["summary"]
    assert "86.8–88.6" in page.by_id["probes"]
    assert "TrainingDiverged" in page.by_id["ablations"]
    assert "40.4 ± 0.5" in page.by_id["ablations"]
    assert "-12.1 ± 0.3" in page.by_id["ablations"]
    assert "1.04 %" in page.by_id["store"]
    assert read_identity(made / "scenes" / "run").fingerprint() in page.by_id["provenance"]
    assert "caev2 pretrain STORE RUN --images IMAGES --recipe demo" in page.by_id["reproduce"]


def test_nothing_is_fetched_and_nothing_runs(made, tmp_path):
    page = page_of(made / "scenes", made / "study", out=tmp_path / "page.html")
    assert {name for name, _ in page.elements} & {"script", "link", "iframe", "object", "base", "form"} == set()
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
        assert (attributes.get("href") or "#").startswith("#")
    content = (tmp_path / "page.html").read_text()
    assert re.findall(r"url\(|@import|https?:", content) == []


def test_the_same_files_give_the_same_bytes(made, tmp_path):
    for name in ("one", "other"):
        report([made / "scenes", made / "study"], tmp_path / f"{name}.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "other.html").read_bytes()


def test_every_drawing_has_a_title_and_a_description(made, tmp_path):
    page = page_of(made / "scenes", made / "study", out=tmp_path / "page.html")
    drawings = len(page.tags("svg"))
    assert drawings > 10
    assert (len(page.tags("title")), len(page.tags("desc"))) == (drawings + 1, drawings)
    assert all(picture["alt"] for picture in page.tags("img"))


def test_hostile_names_are_shown_and_not_run(tmp_path):
    classes = (HOSTILE, "'\"><img src=x onerror=y>", "&amp;", *"3456789")
    make_run(tmp_path / "a<b" / "run", classes=classes)
    page = page_of(tmp_path / "a<b", out=tmp_path / "page.html")
    assert page.tags("script") == []
    assert HOSTILE in page.by_id["probes"]
    assert "&amp;" in page.by_id["probes"]
    assert all((picture["src"] or "").startswith("data:") for picture in page.tags("img"))
    assert any("a<b" in word for word in page.words)


def test_no_path_of_the_machine_is_on_the_page(run, study, tmp_path):
    identity = read_identity(run)
    facts = facts_of(identity, run / "checkpoints" / f"step-{STEPS:09d}.safetensors", STEPS)
    missing = dataclasses.replace(
        probe_result(facts).subjects[3], name=f"teacher {HIDDEN}/clip.pt", not_available=f"{HIDDEN}/clip.pt: no such file",
        accuracy={}, draws={}, per_class={},
    )  # fmt: skip
    save_result(probe_result(facts, subjects=(*probe_result(facts).subjects[:3], missing)), run)
    outcome = read_outcome(study / "supervision")
    runs = tuple(dataclasses.replace(one, failure=f"OSError: {HIDDEN}/store is gone") for one in outcome.runs)
    write_outcome(dataclasses.replace(outcome, runs=runs), study / "supervision")
    report([run.parent, study], tmp_path / "page.html", store=run.parent / "store")
    content = (tmp_path / "page.html").read_text()
    assert "…/clip.pt" in content
    for hidden in ("alice", str(tmp_path), str(Path.home()) + "/", str(Path.cwd())):
        assert hidden not in content


@pytest.mark.parametrize(
    ("name", "section", "words"),
    [
        ("run.json", "summary", "its fingerprint does not hold"),
        ("log.jsonl", "curves", "log.jsonl"),
        ("result.json", "probes", "result.json"),
        ("segmentation.json", "probes", "segmentation.json"),
        ("finetuned/student/result.json", "probes", "finetuned/student"),
        ("pictures/patches.png", "pictures", "damaged"),
        ("../store/manifest.json", "store", "manifest.json"),
        ("../store/targets/projected/codec/quality.json", "store", "quality.json"),
    ],
)
def test_a_damaged_file_is_said_in_its_section_and_the_page_is_written(run, tmp_path, name, section, words):
    path = run / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + b"\n{}\n")
    page = page_of(run, out=tmp_path / "page.html")
    assert list(page.by_id) == SECTIONS
    assert words in page.by_id[section].partition("Missing")[2]


def test_a_run_that_nobody_judged_says_how_to(run, tmp_path):
    for name in ("results", "finetuned", "pictures", "checkpoints", "../store"):
        shutil.rmtree(run / name)
    for name in ("result.json", "segmentation.json", "log.jsonl"):
        (run / name).unlink()
    result = report([run], tmp_path / "page.html")
    filled = [name for name, is_filled in result.sections.items() if is_filled]
    assert filled == ["summary", "provenance", "environment", "reproduce"]
    commands = " ".join(Page((tmp_path / "page.html").read_bytes()).codes)
    for command in (
        "probe RUN IMAGES",
        "segment RUN IMAGES",
        "finetune RUN",
        "show RUN IMAGE",
        "ablate STUDY",
        "--store STORE",
    ):
        assert f"caev2 {command}" in commands or command in commands


def test_huge_pictures_become_smaller_and_the_page_stays_small(run, tmp_path):
    import numpy as np

    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 255, (1000, 1800, 3), dtype=np.uint8)
        Image.fromarray(noise).save(run / "pictures" / f"huge-{number}.png")
    result = report([run], tmp_path / "page.html")
    assert result.bytes < 10_000_000
    widths = [int(picture["width"] or 0) for picture in Page((tmp_path / "page.html").read_bytes()).tags("img")]
    assert 1200 in widths
    assert max(widths) <= 1600


def test_what_the_page_draws_itself_is_not_embedded_as_well(run, study, tmp_path):
    for path in (run / "loss.png", run / "accuracy.png", study / "supervision" / "bars-knn.png"):
        make_picture(path)
    make_picture(study / "supervision" / "bars-cosine_masked.png")  # the third metric is drawn by nobody else
    page = page_of(run, study, out=tmp_path / "page.html")
    captions = [str(picture["alt"]) for picture in page.tags("img")]
    assert not any("Loss and" in one or "Every evaluation" in one or "kNN, bars" in one for one in captions)
    assert "Which tokens are supervised: cosine, masked tokens, bars and differences" in captions


def test_runs_with_more_pictures_than_a_page_has_room_for_show_some_of_each_and_say_so(tmp_path):
    import numpy as np

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 480, 3), dtype=np.uint8))
    noise.save(tmp_path / "noise.png")
    for number in range(2):
        make_run(tmp_path / f"run-{number}", beside=False)
        for name in range(22):
            shutil.copy(tmp_path / "noise.png", tmp_path / f"run-{number}" / "pictures" / f"{name}.png")
    places = [tmp_path / f"run-{number}" for number in range(2)]
    result = report(places, tmp_path / "page.html")
    assert result.bytes < 10_000_000
    assert any("pictures of run-1 are left out" in one for one in result.missing)


def test_of_many_classes_an_earlier_result_has_numbers_alone(run, tmp_path):
    classes = tuple(f"class {number}" for number in range(100))
    facts = facts_of(read_identity(run), run / "checkpoints" / f"step-{STEPS:09d}.safetensors", STEPS)
    for seed in range(3):
        save_result(probe_result(facts, classes, seed=seed), run)
    page = page_of(run, out=tmp_path / "page.html")
    assert page.by_id["probes"].count("kept from an earlier question") >= 2
    strips = [picture for picture in page.tags("img") if "100 classes" in str(picture["alt"])]
    assert len(strips) == 23  # four who were judged in six evaluations; pixels have no tokens to attend to


def test_a_gap_stands_in_its_own_section_alone(run, tmp_path):
    (run / "log.jsonl").write_text("nothing\n{}\n")
    (run / "finetuned" / "started").mkdir()
    shutil.copy(run / "finetuned" / "student" / "finetune.json", run / "finetuned" / "started")
    found = page_of(run, out=tmp_path / "page.html").by_id
    assert "log.jsonl" in found["curves"]
    assert "log.jsonl" not in found["probes"]
    assert "finetuned/started has no result yet." in found["probes"]


def test_two_runs_of_one_name_are_told_apart(made, tmp_path):
    page = page_of(made / "scenes", made / "scenes" / "run", out=tmp_path / "page.html")
    assert "scenes (2)" in page.by_id["probes"]


def test_a_folder_that_is_no_run_is_refused_and_nothing_is_written(tmp_path):
    make_picture(tmp_path / "pictures" / "a.png")
    with pytest.raises(ConfigError, match="There is no run at"):
        report([tmp_path / "pictures"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_log_with_numbers_that_were_not_finite_is_drawn(run, tmp_path):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for line in lines[5:9]:
        line.update({"loss": None, "cosine_masked": None, "applied": False} if "loss" in line else {})
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = page_of(run, out=tmp_path / "page.html")
    assert "told steps were skipped" in page.by_id["curves"]
