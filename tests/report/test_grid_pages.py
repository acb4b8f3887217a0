"""Grids on the page: compared with the folders of their runs, and what they learned from."""

import dataclasses
import shutil

from caev2.ablate.outcome import Score, read_outcome, write_outcome
from caev2.eval.entrants import sha256_of_file
from caev2.pretrain.identity import read_identity
from tests.report.made_up import TEACHER
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
        ["views", "projected", "lloyd4", "6,000 × 2", "4.3 kB", "1.04 %", "1.21 %", "0.9939", "0.9911"],
        ["views-int8", "projected", "int8", "6,000 × 2", "8.4 kB", "1.04 %", "–", "–", "–"],
    ]


def test_what_an_older_version_did_not_record_is_said(study, tmp_path):
    outcome = read_outcome(study / "supervision")
    write_outcome(dataclasses.replace(outcome, targets=()), study / "supervision")
    found = page_of(study, out=tmp_path / "page.html").by_id["store"]
    assert "Nothing was recorded of the stores of supervision." in found
