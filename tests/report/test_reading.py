"""What is read of the folders: hashes are compared, paths are forgotten, damage is told."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caev2.ablate.differences import find_differences
from caev2.ablate.outcome import read_outcome
from caev2.eval.result import save_result
from caev2.pretrain.identity import read_identity
from caev2.report.reading.chain import chain_of, result_links, worst
from caev2.report.reading.files import scrubbed, without_folders
from caev2.report.reading.results import read_results
from caev2.report.reading.runs import read_run
from caev2.report.reading.stores import StoreFolder, read_store
from caev2.report.sections.probes import grouped
from caev2.report.sections.summary import say_order
from tests.report.made_up import STEPS, facts_of, identity_of, make_checkpoint, make_tuned, probe_result

HIDDEN = "/home" + "/alice/clip"  # in two parts: no file of the project names a folder of a machine


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"{HIDDEN}/weights.pt is not there", "…/weights.pt is not there"),
        (f"timm:vit@{HIDDEN}/w.safetensors", "timm:vit@…/w.safetensors"),
        (f"see file://{HIDDEN}/a.png, and ~/own/b", "see …/a.png, and …/b"),
        ("C:\\Users\\alice\\w.pt", "…/w.pt"),
        ("1/2 of tokens, and/or a/b/c", "1/2 of tokens, and/or a/b/c"),
        ("runs/base/result.json", "runs/base/result.json"),
    ],
)
def test_of_an_absolute_path_the_last_name_alone_is_left(text, shown):
    assert without_folders(text) == shown


@given(st.lists(st.sampled_from(["alice", "b.c", "d-e", "f_9"]), min_size=2, max_size=5))
def test_no_folder_of_an_absolute_path_is_left_anywhere_in_a_file(names):
    path = "/" + "/".join(names)
    left = json.dumps(scrubbed({path: [path, {"reason": f"cannot read {path}"}]}), ensure_ascii=False)
    assert f"/{names[0]}/" not in left
    assert left.count(names[-1]) >= 3


def marks(links) -> dict[str, str]:
    return {link.title: worst(link.checks) for link in links}


def test_everything_that_was_just_made_agrees(run):
    read = read_run(run, "scenes")
    assert {worst(link.checks) for link in chain_of(read, read_store(read.store, read.identity))} == {"agrees"}
    found = marks(result_links(read))
    assert (found["result.json"], found["segmentation.json"]) == ("agrees", "agrees")


def test_a_result_of_an_older_checkpoint_is_told_and_still_compared_with_it(run):
    make_checkpoint(run, read_identity(run), STEPS + 94)
    link = result_links(read_run(run, "scenes"))[0]
    assert {check.mark for check in link.checks} == {"agrees", "older"}
    assert any(f"{STEPS:,}" in check.words and f"{STEPS + 94:,}" in check.words for check in link.checks)


def test_a_checkpoint_that_is_gone_is_not_at_hand(run):
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    read = read_run(run, "scenes")
    assert marks(result_links(read))["result.json"] == "not at hand"
    assert worst(chain_of(read, read_store(None, None))[0].checks) == "not at hand"


def test_a_checkpoint_that_was_written_again_differs(run):
    path = next((run / "checkpoints").iterdir())
    path.write_bytes(path.read_bytes() + b" ")
    assert marks(result_links(read_run(run, "scenes")))["result.json"] == "differs"


@pytest.mark.parametrize("is_judged", [True, False])
def test_a_checkpoint_that_was_cut_off_differs(run, is_judged):
    path = next((run / "checkpoints").iterdir())
    path.write_bytes(path.read_bytes()[:-4])
    if not is_judged:
        for result in (run / "result.json", run / "segmentation.json", *(run / "results").iterdir()):
            result.unlink()
    assert worst(chain_of(read_run(run, "scenes"), StoreFolder(manifest=None))[0].checks) == "differs"


def test_of_a_checkpoint_with_another_byte_a_result_knows_and_a_header_alone_does_not(run):
    path = next((run / "checkpoints").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert worst(chain_of(read_run(run, "scenes"), StoreFolder(manifest=None))[0].checks) == "differs"
    for result in (run / "result.json", run / "segmentation.json", *(run / "results").iterdir()):
        result.unlink()
    (check,) = chain_of(read_run(run, "scenes"), StoreFolder(manifest=None))[0].checks
    assert "there is nothing to compare that with" in check.words


def test_what_was_compared_as_recorded_does_not_say_that_it_was_computed(run):
    read = read_run(run, "scenes")
    store, teacher = chain_of(read, read_store(read.store, read.identity))[2:]
    assert any(
        "record the same root digest (`caev2 store verify STORE` reads the rows)" in one.words for one in store.checks
    )
    assert [one.words for one in teacher.checks] == ["run and store record the same sha256 (no weights were read)"]


def test_a_checkpoint_of_another_run_differs(run):
    make_checkpoint(run, dataclasses.replace(identity_of(), init_from="ab" * 16), STEPS + 1)
    assert worst(chain_of(read_run(run, "scenes"), read_store(None, None))[0].checks) == "differs"


def test_a_result_of_another_run_differs(run):
    other = dataclasses.replace(read_identity(run), init_from="ab" * 16)
    path = run / "checkpoints" / f"step-{STEPS:09d}.safetensors"
    save_result(probe_result(facts_of(other, path, STEPS)), run)
    assert marks(result_links(read_run(run, "scenes")))["result.json"] == "differs"


def test_another_store_and_another_teacher_differ(run, tmp_path):
    manifest = json.loads((run.parent / "store" / "manifest.json").read_text())
    read = read_run(run, "scenes")
    store = read_store(read.store, read.identity)
    assert store.given is not None
    target = store.given.spec.targets["projected"]
    teacher = dataclasses.replace(target, teacher={**target.teacher, "sha256": "0" * 64})
    spec = dataclasses.replace(store.given.spec, targets={"projected": teacher})
    other = dataclasses.replace(store, given=dataclasses.replace(store.given, spec=spec, root_digest="0" * 64))
    links = chain_of(read, other)
    assert [worst(link.checks) for link in links[-2:]] == ["differs", "differs"]
    assert manifest["root_digest"] != "0" * 64


def test_a_store_that_is_not_given_is_not_at_hand(run):
    read = read_run(run, "scenes")
    assert [worst(link.checks) for link in chain_of(read, read_store(None, None))[-2:]] == ["not at hand"] * 2
    assert "Not given" in read_store(None, None).gaps[0].what


@pytest.mark.parametrize("change", [{"fingerprint": "0" * 32}, {"recipe": {"epochs": 7}}, {"start": {"role": "x"}}])
def test_a_fine_tuning_whose_claim_was_edited_differs(run, change):
    claim = run / "finetuned" / "student" / "finetune.json"
    claim.write_text(json.dumps({**json.loads(claim.read_text()), **change}))
    assert marks(result_links(read_run(run, "scenes")))["finetuned/student/result.json"] == "differs"


def test_a_fine_tuning_whose_folder_holds_another_one_differs(run):
    teacher, student = (run / "finetuned" / role / "finetune.json" for role in ("teacher", "student"))
    student.write_bytes(teacher.read_bytes())
    assert marks(result_links(read_run(run, "scenes")))["finetuned/student/result.json"] == "differs"


def test_a_fine_tuning_that_says_which_run_it_started_from_is_compared_with_it(run):
    path = run / "checkpoints" / f"step-{STEPS:09d}.safetensors"
    make_tuned(run / "finetuned" / "again", "student", 0.9, facts_of(read_identity(run), path, STEPS))
    assert marks(result_links(read_run(run, "scenes")))["finetuned/again/result.json"] == "agrees"


def test_the_latest_result_is_read_once_and_earlier_ones_are_kept(run):
    path = run / "checkpoints" / f"step-{STEPS:09d}.safetensors"
    save_result(probe_result(facts_of(read_identity(run), path, STEPS), seed=1), run)
    results, gaps = read_results(run)
    assert gaps == []
    probes = [result for result in results if result.kind == "probe"]
    assert [result.content["seed"] for result in probes] == [1, 0]
    assert probes[1].file.startswith("results/")


def test_fine_tunings_on_the_same_images_share_a_table(run):
    results, _ = read_results(run)
    assert [len(group) for group in grouped(results)] == [1, 1, 3]


def test_a_difference_is_claimed_beyond_two_standard_errors_only(study):
    found = {(one.variant, one.metric): one for one in find_differences(read_outcome(study / "supervision"))}
    clear, open_one = found["tokens=visible", "knn"].difference, found["tokens=visible", "linear"].difference
    assert clear is not None
    assert open_one is not None
    assert (clear.verdict, open_one.verdict) == ("worse", "not resolved")
    assert clear.mean == pytest.approx(-0.1206667, rel=1e-4)
    assert found["tokens=both", "knn"].difference is None
    assert found["tokens=masked", "knn"].failed == 1


def test_sentences_name_what_intervals_do_not_tell_apart(run):
    results, _ = read_results(run)
    masks = next(result for result in results if result.kind == "segment")
    own = {str(entry.own): entry for entry in masks.entries}
    assert say_order(own, masks.evaluations) == [
        "The student is above its random start: masks (mIoU).",
        "Not resolved between the student and its teacher: masks (mIoU).",
    ]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rubbish(path: Path) -> None:
    path.write_bytes(b"\xff\xfe no text at all")


def another_shape(path: Path) -> None:
    path.write_text('{"subjects": [{"role": 3}], "settings": [], "classes": null}')


@pytest.mark.parametrize("damage", [cut, rubbish, another_shape])
def test_a_damaged_result_is_a_gap_and_the_others_are_read(run, damage):
    for name in ("result.json", *(f"results/{path.name}" for path in (run / "results").iterdir())):
        if "segm" not in name:
            damage(run / name)
    results, gaps = read_results(run)
    assert {result.kind for result in results} == {"segment", "finetune"}
    assert any(gap.what.startswith("result.json") for gap in gaps)
