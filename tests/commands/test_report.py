"""`caev2 report`: a page of what the commands themselves have written."""

import json

from tests.commands.invoking import caev2, refusal
from tests.report.made_up_grids import make_study
from tests.report.reading_pages import Page
from tests.test_docs import parse


def test_a_run_that_was_trained_and_probed_is_a_page_whose_every_hash_agrees(run, store, images, tmp_path):
    probed = caev2("probe", run, images, "--quiet", "--device", "cpu", "--kind", "knn", "--k", "3", "--pixels", "32")
    assert probed.exit_code == 0, probed.output
    done = caev2("report", run, tmp_path / "page.html", "--store", store, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["path"] == str(tmp_path / "page.html")
    filled = {name for name, is_filled in said["sections"].items() if is_filled}
    assert filled == {"summary", "curves", "probes", "store", "provenance", "environment", "reproduce"}
    page = Page((tmp_path / "page.html").read_bytes())
    assert "agrees" in page.by_id["provenance"]
    for mark in ("✗ differs", "older checkpoint", "– not at hand"):
        assert mark not in page.by_id["provenance"]
    assert "--pixels 32 --kind knn --k 3" in page.by_id["reproduce"]


def test_every_printed_command_is_one(run, tmp_path):
    assert caev2("report", run, tmp_path / "page.html").exit_code == 0
    page = Page((tmp_path / "page.html").read_bytes())
    lines = [line for line in page.commands if not line.startswith("caev2 ablate")]
    assert len(lines) >= 6
    for line in lines:
        parse(line)


def test_a_run_that_went_on_after_its_probe_is_told(run, store, images, tmp_path):
    from tests.commands.invoking import PRETRAIN

    assert caev2("probe", run, images, "--quiet", "--device", "cpu", "--kind", "knn", "--k", "3").exit_code == 0
    latest = max((run / "checkpoints").iterdir())
    latest.rename(tmp_path / latest.name)
    assert caev2("report", run, tmp_path / "page.html").exit_code == 0
    page = Page((tmp_path / "page.html").read_bytes())
    assert "older checkpoint" in page.by_id["provenance"]
    assert "no longer there" in page.by_id["provenance"]
    assert caev2("pretrain", store, run, "--images", images, *PRETRAIN).exit_code == 0


def test_what_was_written_is_said(run, tmp_path):
    done = caev2("report", run, tmp_path / "folder" / "page.html")
    assert done.stdout.startswith(f"Wrote {tmp_path / 'folder' / 'page.html'}, ")
    assert "missing: No pictures lie in the run" in done.stdout


def test_a_study_is_a_page(tmp_path):
    make_study(tmp_path / "study")
    assert caev2("report", tmp_path / "study", tmp_path / "page.html").exit_code == 0
    page = Page((tmp_path / "page.html").read_bytes())
    assert "Which tokens are supervised" in page.by_id["ablations"]
    assert list(page.by_id) == ["summary", "ablations", "store", "provenance", "environment", "reproduce"]
    assert [link["href"] for link in page.tags("a")][1:] == [f"#{name}" for name in page.by_id]
    assert "No run was named by itself" in page.by_id["summary"]


def test_a_folder_that_is_no_run_is_refused(images, tmp_path):
    said = refusal("report", images, tmp_path / "page.html")
    assert "There is no run at" in said
    assert not (tmp_path / "page.html").exists()


def test_a_page_is_not_written_over_what_may_be_a_run(run, tmp_path):
    assert "End it in .html" in refusal("report", run, run)
    (tmp_path / "folder.html").mkdir()
    assert "is a folder" in refusal("report", run, tmp_path / "folder.html")
