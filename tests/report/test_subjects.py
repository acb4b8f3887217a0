"""A number stands beside its own subject, its own store and its own step, and beside nobody else's."""

import dataclasses
import json

import pytest

from caev2.eval.interval import wilson
from caev2.eval.result import save_result
from caev2.pretrain.identity import read_identity
from caev2.report.reading.results import read_results
from caev2.report.reading.runs import read_run
from caev2.report.reading.stores import read_store
from caev2.report.run import report
from caev2.report.sections.probes import grouped, short_names
from tests.report.made_up import (
    STEPS,
    VAL,
    facts_of,
    identity_of,
    make_checkpoint,
    make_run,
    make_tuned,
    manifest_of,
    probe_result,
    segmentation_result,
)
from tests.report.reading_pages import Page


def facts(run):
    return facts_of(read_identity(run), run / "checkpoints" / f"step-{STEPS:09d}.safetensors", STEPS)


def judge(run, *names: str, without: tuple[str, ...] = ()) -> None:
    """Put others of the run's roles into its result, each with 12.3 % in every evaluation, and in front of its own."""
    subjects = [one for one in probe_result(facts(run)).subjects if one.role not in without]
    others = []
    for name in names:
        role = "random start" if name.startswith("random") else "teacher"
        accuracy = dict.fromkeys(("knn", "linear"), wilson(round(0.123 * VAL), VAL))
        like = dataclasses.replace(subjects[-1], role=role, name=name, sha256="77" * 32, accuracy=accuracy)
        others.append(dataclasses.replace(like, draws={}, per_class={"linear": (0.123,) * 10}))
    save_result(probe_result(facts(run), subjects=(*others, *subjects)), run)


def page_of(*places, out, **options) -> Page:
    report(places, out, **options)
    return Page(out.read_bytes())


def test_a_start_of_another_recipe_and_another_teacher_are_not_the_runs_own(run, tmp_path):
    judge(run, "random start of base-300e", "teacher siglip")
    page = page_of(run, out=tmp_path / "page.html")
    assert "12.3" not in page.by_id["summary"]
    assert "random start10.7" in page.by_id["summary"]
    assert "teacher94.9" in page.by_id["summary"]
    assert "12.3" in page.by_id["probes"]


def test_without_its_own_teacher_and_start_nothing_is_said_of_them(run, tmp_path):
    judge(run, "random start of base-300e", "teacher siglip", without=("random start", "teacher"))
    for name in ("segmentation.json", "finetuned/teacher/result.json", "finetuned/random-start/result.json"):
        (run / name).unlink()
    found = page_of(run, out=tmp_path / "page.html").by_id["summary"]
    assert "its teacher" not in found
    assert "its random start" not in found


def test_everybody_in_a_table_has_a_name_and_a_row_of_classes_of_its_own(run, tmp_path):
    judge(run, "teacher siglip")
    page = page_of(run, out=tmp_path / "page.html")
    entries = read_results(run, read_identity(run).target["teacher"])[0][0].entries
    assert short_names(entries) == ["teacher siglip", "pixels", "random start", "student", "teacher"]
    strip = page.by_id["probes"].partition("linear, by class")[2][:400]
    for name in short_names(entries):
        assert strip.count(name) >= 1
    assert strip.count("teacher siglip" + "12" * 10) == 1


def test_fine_tunings_of_other_lengths_are_not_ranked_and_those_of_one_name_are_told_apart(run, tmp_path):
    make_tuned(run / "finetuned" / "long", "teacher", 0.99, epochs=100)
    make_tuned(run / "finetuned" / "again", "student", 0.7)
    results, _ = read_results(run, read_identity(run).target["teacher"])
    assert sorted(len(group) for group in grouped(results) if group[0].kind == "finetune") == [1, 4]
    found = page_of(run, out=tmp_path / "page.html").by_id
    assert "Fine-tuned for 100 epochs" in found["probes"]
    for place in ("finetuned/again", "finetuned/student", "student, again", "student, student"):
        assert place in found["probes"]
    assert "fine-tuned" not in found["summary"]  # there are two students, and their table tells which is which


def other_store(run) -> None:
    manifest = json.loads((run.parent / "store" / "manifest.json").read_text())
    assert manifest["images"] == 6000
    content = dataclasses.replace(manifest_of(), images=777, root_digest="99" * 32).to_bytes()
    (run.parent / "store" / "manifest.json").write_bytes(content)


@pytest.mark.parametrize("by_name", [True, False])
def test_another_store_is_told_and_shown_nowhere(run, tmp_path, by_name):
    other_store(run)
    found = page_of(run, out=tmp_path / "page.html", store=run.parent / "store" if by_name else None).by_id
    assert "777 images" not in "".join(found.values())
    assert "from a store that is not at hand" in found["summary"]
    assert "is another one: its root digest is 9999" in found["store"]
    assert "The run does not record how many views" in found["reproduce"]
    assert "✗ differs" in found["provenance"]


def test_a_store_of_another_spec_is_told_by_its_fingerprint(run):
    identity = identity_of(manifest=manifest_of("int8"))
    read = read_store(run.parent / "store", identity)
    assert read.manifest is None
    assert "its fingerprint is" in read.gaps[0].what


def test_one_store_is_given_to_the_run_that_learned_from_it_alone(run, tmp_path):
    make_run(tmp_path / "other" / "run")
    other_store(tmp_path / "other" / "run")
    page = page_of(run, tmp_path / "other" / "run", out=tmp_path / "page.html", store=tmp_path / "other" / "store")
    assert "777 images" not in page.by_id["summary"]
    assert page.by_id["store"].count("is another one") == 2


def test_masks_whose_number_0_is_ignored_begin_with_class_1(run):
    for ignore, names in ((0, ("1", "12")), (255, ("0", "11"))):
        save_result(dataclasses.replace(segmentation_result(facts(run)), ignore=ignore), run, "segmentation.json")
        masks = next(one for one in read_run(run, "scenes").results if one.file == "segmentation.json")
        assert (masks.classes[0], masks.classes[-1], len(masks.classes)) == (*names, 12)


def test_numbers_of_an_older_checkpoint_say_their_step(run, tmp_path):
    before = page_of(run, out=tmp_path / "before.html").by_id["summary"]
    assert "not the latest" not in before
    make_checkpoint(run, read_identity(run), STEPS + 94)
    found = page_of(run, out=tmp_path / "page.html").by_id["summary"]
    assert f"at step {STEPS:,}, not the latest" in found
    assert f"Of step {STEPS:,}, and not of the {STEPS + 94:,} that the run has come to" in found
