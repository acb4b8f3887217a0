"""Grids on the page: compared with the folders of their runs, and what they learned from."""

import dataclasses
import shutil

from caev2.ablate.outcome import Score, read_outcome, write_outcome
from caev2.eval.entrants import sha256_of_file
from caev2.pretrain.identity import read_identity
from tests.report.made_up import TEACHER, make_picture
from tests.report.made_up_grids import stored
from tests.report.reading_pages import HOSTILE, page_of


def test_hostile_words_of_a_grid_are_shown_and_not_run(study, tmp_path):
    outcome = read_outcome(study / "supervision")
    runs = tuple(dataclasses.replace(one, failure=HOSTILE, variant=one.variant + HOSTILE) for one in outcome.runs)
    changes = {"title": HOSTILE, "claim": HOSTILE, "source": HOSTILE, "baseline": outcome.baseline + HOSTILE}
    write_outcome(dataclasses.replace(outcome, runs=runs, **changes), study / "supervision")
    page = page_of(study, out=tmp_path / "page.html")
    assert page.tags("script") == []
    assert page.by_id["ablations"].count(HOSTILE) > 5


def test_a_damaged_grid_is_said_and_the_others_are_shown(study, tmp_path):
    shutil.copytree(study / "supervision", study / "damaged")
    (study / "damaged" / "outcome.json").write_text('{"axes": []}')
    page = page_of(study, out=tmp_path / "page.html")
    assert "damaged/outcome.json is damaged" in page.by_id["ablations"]
    assert "Which tokens are supervised" in page.by_id["ablations"]


def test_runs_of_a_grid_are_compared_with_their_folders(study, tmp_path):
    outcome = read_outcome(study / "supervision")
    shutil.rmtree(study / "runs" / outcome.runs[0].fingerprint)
    (study / "runs" / outcome.runs[1].fingerprint / "run.json").write_text("{}")
    found = page_of(study, out=tmp_path / "page.html").by_id["provenance"]
    assert found.count("its folder is not there") == 1
    assert found.count("its run.json does not hold its fingerprint") == 1
    assert found.count("in all 7 comparisons") == 6
    assert found.count("in all 6 comparisons") == 1  # the one that failed shows no numbers


def test_a_number_of_a_grid_that_its_run_does_not_give_differs(study, tmp_path):
    outcome = read_outcome(study / "supervision")
    first = outcome.runs[0]
    changed = dataclasses.replace(first, scores={**first.scores, "knn": Score(value=0.9), "1-shot": Score(value=0.5)})
    write_outcome(dataclasses.replace(outcome, runs=(changed, *outcome.runs[1:])), study / "supervision")
    found = page_of(study, out=tmp_path / "page.html").by_id["provenance"]
    assert "knn is 0.9, and 0.52 in the run’s own files" in found
    assert found.count("✗ differs") == 2  # of the run, and in the count of all
    assert found.count("in all 7 comparisons") == 7


def test_the_chain_of_a_grid_has_checkpoints_stores_and_teachers(study, tmp_path):
    found = page_of(study, out=tmp_path / "page.html").by_id["provenance"]
    for one in read_outcome(study / "supervision").runs:
        run = study / "runs" / one.fingerprint
        assert sha256_of_file(next((run / "checkpoints").iterdir())) in found
        assert read_identity(run).store_digest in found
    assert str(TEACHER["sha256"]) in found


def test_a_page_of_grids_alone_says_how_their_targets_are_stored(study, tmp_path):
    outcome = read_outcome(study / "supervision")
    quality = dataclasses.replace(stored().quality, patch_tokens=None)
    targets = (*outcome.targets, stored("views-int8", "int8", quality))
    write_outcome(dataclasses.replace(outcome, targets=targets), study / "supervision")
    lines = page_of(study, out=tmp_path / "page.html").rows("store")
    assert lines[1:] == [
        [
            "views 6,000 images × 2", "projected", "lloyd4", "4.3 kB 50.8 %", "1.04 %", "1.21 %",
            "0.9939 1st percentile 0.9911", f"{'4d' * 8} ✓ agrees",
        ],
        [
            "views-int8 6,000 images × 2", "projected", "int8", "8.4 kB 100 %", "1.04 %", "–",
            "–", f"{'4d' * 8} – not at hand",
        ],
    ]  # fmt: skip


def test_what_an_older_version_did_not_record_is_said(study, tmp_path):
    outcome = read_outcome(study / "supervision")
    write_outcome(dataclasses.replace(outcome, targets=()), study / "supervision")
    found = page_of(study, out=tmp_path / "page.html").by_id["store"]
    assert "Nothing was recorded of the stores of supervision." in found


def test_a_store_whose_digest_the_runs_do_not_have_differs(study, tmp_path):
    outcome = read_outcome(study / "supervision")
    (target,) = outcome.targets
    changed = dataclasses.replace(target, digest="00" * 32)
    write_outcome(dataclasses.replace(outcome, targets=(changed,)), study / "supervision")
    (line,) = page_of(study, out=tmp_path / "page.html").rows("store")[1:]
    assert line[-1] == f"{'0' * 16} ✗ differs"


def test_two_folders_with_one_grid_have_headings_and_pictures_of_their_own(study, tmp_path):
    other = shutil.copytree(study, tmp_path / "other")
    for folder, width in ((study, 700), (other, 740)):
        make_picture(folder / "supervision" / "curves.png", width, 300)
    page = page_of(study, other, out=tmp_path / "page.html")
    assert [picture["width"] for picture in page.tags("img")] == ["700", "740"]
    for name in ("study", "other"):
        assert f"Which tokens are supervised ({name})" in page.by_id["ablations"]
        assert f"Runs of the grid supervision ({name})" in page.by_id["provenance"]
        assert f"supervision ({name})" in page.by_id["reproduce"]


def test_the_two_forms_of_a_grid_are_told_apart_by_form(study, tmp_path):
    other = shutil.copytree(study, tmp_path / "other")
    write_outcome(dataclasses.replace(read_outcome(other / "supervision"), quick=False), other / "supervision")
    found = page_of(study, other, out=tmp_path / "page.html").by_id["ablations"]
    assert found.index("supervised (quick form)") < found.index("supervised (full form)")


def test_what_was_found_stands_before_the_claim_and_code_is_code(study, tmp_path):
    outcome = read_outcome(study / "supervision")
    changes = {
        "claim": "Tokens of `projected` teach more.",
        "classes": 10,
        "overrides": {"epochs": 3},
        "recipe": "demo",
    }
    write_outcome(dataclasses.replace(outcome, **changes), study / "supervision")
    page = page_of(study, out=tmp_path / "page.html")
    found = page.by_id["ablations"]
    assert found.index("kNN: worse than both") < found.index("Claim tested: Tokens of projected teach more.")
    assert "projected" in page.codes
    assert "of 10 classes (one guess in 10 is right). Recipe demo. Set for all runs: epochs=3." in found
