"""Pages of grids: a reader of Markdown finds the numbers, the sentences and the pictures."""

import csv
import dataclasses
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pyarrow import parquet

from caev2.ablate.markdown import ablations_page, table_page
from caev2.ablate.pages import write_pages
from caev2.ablate.sentences import say_findings
from caev2.ablate.stored import StoredTarget
from caev2.ablate.tables import rows_of
from caev2.errors import OutputError
from caev2.store.codecs.quality import Figures, Quality
from tests.ablate.made_up import averages, make_outcome, supervision, views, write_logs

ALL_FAILED = {((name,), seed): "killed" for name in ("both", "visible", "masked") for seed in (0, 1)}


def tables_in(page: str) -> list[list[list[str]]]:
    """The tables that a Markdown parser finds: rows of cells."""
    tables: list[list[list[str]]] = []
    is_cell = False
    for token in MarkdownIt("commonmark").enable("table").parse(page):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("th_open", "td_open", "th_close", "td_close"):
            is_cell = token.nesting == 1
        elif is_cell:
            tables[-1][-1].append(token.content)
    return tables


def kinds_in(page: str) -> list[str]:
    return [token.type for token in MarkdownIt("commonmark").enable("table").parse(page)]


def images_and_links(page: str) -> list[str]:
    return re.findall(r"\]\(([^)#]+)\)", page)


def written(outcomes, out: Path) -> list[Path]:
    for outcome in outcomes:
        write_logs(outcome, out)
    return write_pages(outcomes, out, pytest.fail)


def test_sentences_say_direction_size_and_pairs():
    assert say_findings(supervision(), "knn") == [
        "kNN: worse than both: visible (-12.3 ± 0.3 points over 2 pairs) and masked (-1.05 ± 0.05)."
    ]
    assert say_findings(supervision(), "linear") == [
        "linear probe: masked is worse than both (-0.85 ± 0.05 points over 2 pairs).",
        "linear probe: visible against both: not resolved (-0.4 ± 0.6 points over 2 pairs).",
    ]
    assert say_findings(supervision(), "loss") == [
        "loss: not compared with both: visible (another loss) and masked (another loss)."
    ]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((0.40, 0.41), "kNN: b against a: not resolved (-10.0 points, the same in every pair)."),
        ((0.40, 0.412), "kNN: b is worse than a (-9.9 ± 0.1 points over 2 pairs)."),
        ((0.60, 0.612), "kNN: b is better than a (+10.1 ± 0.1 points over 2 pairs)."),
        ((0.50, 0.506), "kNN: b against a: not resolved (-0.2 ± 0.2 points over 2 pairs)."),
        ((0.50, 0.5098), "kNN: b against a: not resolved (-0.01 ± 0.01 points over 2 pairs)."),
        ((0.504, 0.5058), "kNN: b against a: not resolved (+0.0 ± 0.4 points over 2 pairs)."),
        ((0.50, 0.51), "kNN: b against a: not resolved (+0.0 points, equal in every pair)."),
    ],
)
def test_a_sentence_for_each_verdict(values, sentence):
    outcome = make_outcome({"way": ("a", "b")}, {("a",): {"knn": (0.5, 0.51)}, ("b",): {"knn": values}})
    assert say_findings(outcome, "knn") == [sentence]


def test_a_cosine_is_lower_and_not_worse():
    values = {("a",): {"cosine_masked": (0.8, 0.81)}, ("b",): {"cosine_masked": (0.7, 0.712)}}
    assert say_findings(make_outcome({"way": ("a", "b")}, values), "cosine_masked") == [
        "cosine, masked tokens: b is lower than a (-0.099 ± 0.001 over 2 pairs)."
    ]


def test_two_axes_are_spoken_of_one_at_a_time():
    assert say_findings(averages(), "knn") == [
        "kNN, mask 32 against 16: better at token_mean (+2.2 ± 0.2 points over 2 pairs) and group_mean (+2.2 ± 0.2).",
        "kNN, mask 48 against 16: better at token_mean (+4.3 ± 0.3 points over 2 pairs) and group_mean (+4.3 ± 0.3).",
        "kNN, group_mean against token_mean: worse at mask 16 (-3.05 ± 0.05 points over 2 pairs), mask 32 (-3.05 ± 0.05) "
        "and mask 48 (-3.05 ± 0.05).",
    ]


def test_one_pair_and_no_pair_say_so():
    failures = {(("visible",), 1): "killed", (("masked",), 0): "killed", (("masked",), 1): "killed"}
    assert say_findings(supervision(failures=failures), "knn") == [
        "kNN: against both not resolved: visible (-12.0 points, one pair) and masked (no pair)."
    ]
    assert say_findings(supervision(failures=ALL_FAILED), "knn") == ["kNN: no run has it."]


def test_the_table_has_a_line_for_each_variant_with_its_numbers():
    accuracy, training = tables_in(table_page(supervision(), {}))
    assert accuracy == [
        ["tokens", "kNN, %", "difference, points", "linear probe, %", "difference, points"],
        ["**both**", "52.5 ± 0.7", "baseline", "60.7 ± 0.4", "baseline"],
        ["visible", "40.2 ± 0.3", "-12.3 ± 0.3: worse", "60.3 ± 0.4", "-0.4 ± 0.6: not resolved"],
        ["masked", "51.4 ± 0.6", "-1.05 ± 0.05: worse", "59.9 ± 0.4", "-0.85 ± 0.05: worse"],
    ]
    assert training[0] == ["tokens", "loss", "difference", "cosine, masked tokens", "difference"]
    assert training[2][2] == "not comparable: another loss"


def test_codecs_are_told_with_what_they_save_and_lose():
    figures = Figures(
        tokens=300, relative_error=0.00204, cosine_mean=0.999, cosine_p1=0.998, centred_cosine_mean=0.99894,
        centred_cosine_p1=0.9967,
    )  # fmt: skip
    patches = dataclasses.replace(figures, relative_error=5.94e-5, centred_cosine_mean=0.99997)
    lossy = StoredTarget(
        store="views-klt", digest="ab" * 32, target="projected", codec="klt", images=1500, views=16, row_bytes=2145,
        quality=Quality(class_token=figures, patch_tokens=patches),
    )  # fmt: skip
    exact = dataclasses.replace(lossy, store="views", codec="float16", row_bytes=16640, quality=None)
    assert len(tables_in(table_page(supervision(targets=(exact,)), {}))) == 2
    *_, stored = tables_in(table_page(supervision(targets=(exact, lossy)), {}))
    assert stored[1:] == [
        ["views", "float16", "16,640", "–", "–", "–", "–"],
        ["views-klt", "klt", "2,145", "0.204 %", "0.00594 %", "1.0000", "0.9967"],
    ]


def test_a_page_says_what_it_is_about():
    page = " ".join(table_page(supervision(), {}).split())
    for part in (
        "# Which tokens are supervised",
        "The claim: Supervising visible tokens matters more than supervising masked ones.",
        "Source: Zhang et al. (2211.09799), table 1.",
        "quick form",
        "nothing about ImageNet",
        "5,000 images",
        "Seeds: 0 and 1.",
        "The baseline is tokens = both.",
    ):
        assert part in page
    full = table_page(dataclasses.replace(supervision(quick=False), built_in=True), {})
    assert "full form" in full
    assert "ImageNet" not in full
    assert "full form" not in table_page(supervision(quick=False), {}), "a grid of one's own has no forms"


def test_a_page_says_what_was_set_for_all_runs_and_what_guessing_finds():
    told = dataclasses.replace(
        supervision(), recipe="study", overrides={"epochs": 20, "mask.kind": "random"}, classes=10
    )
    page = " ".join(table_page(told, {}).split())
    assert "Recipe: `study`. Set for all runs: epochs=20, mask.kind=random." in page
    assert "5,000 images of 10 classes; one guess in 10 is right." in page


def test_nothing_is_ever_proved():
    page = ablations_page([supervision(), views(), averages()], {"supervision": {}, "views": {}, "averages": {}})
    assert not re.search(r"prove|significan|clearly", page)


def test_failed_runs_are_listed_with_their_reason_on_one_line():
    page = table_page(supervision(failures={(("masked",), 1): "out of\nmemory | again"}), {})
    assert "* `supervision/tokens=masked/seed=1`: out of memory | again" in page
    assert "51.0 (1 of 2 seeds)" in page


def test_a_bar_in_a_name_is_no_column():
    values = {("a|b",): {"knn": (0.5, 0.51)}, ("c",): {"knn": (0.4, 0.42)}}
    (table,) = tables_in(table_page(make_outcome({"way": ("a|b", "c")}, values), {}))
    assert {len(row) for row in table} == {3}
    assert table[1][0] == "**a|b**"


@given(st.lists(st.integers(0, 99), min_size=1, max_size=40, unique=True), st.text("ab 1.", max_size=150))
def test_no_sentence_becomes_a_list_by_where_its_lines_end(seeds, claim):
    claim = f"It says {' '.join(claim.split())}"
    values = {("a",): {"knn": [0.5] * len(seeds)}, ("b",): {"knn": [0.4] * len(seeds)}}
    page = table_page(make_outcome({"way": ("a", "b")}, values, seeds=seeds, claim=claim), {})
    assert "ordered_list_open" not in kinds_in(page)


def test_lines_of_prose_have_a_readable_length():
    page = ablations_page([supervision(), views(), averages()], {"supervision": {}, "views": {}, "averages": {}})
    assert max(len(line) for line in page.splitlines() if not line.startswith("|")) <= 120


def test_the_page_counts_runs_comparisons_and_chance():
    page = " ".join(ablations_page([supervision(), views()], {"supervision": {}, "views": {}}).split())
    assert "Grids: 2. Different runs: 18, of which none failed" in page
    # supervision: 2 variants in 2 metrics; views: 4 in kNN, for `4` differs by the same in both pairs, 4 in the cosine
    assert "Comparisons made, each once: 12." in page
    assert f"chance alone would claim about {12 * 0.2952:.1f}" in page
    assert "29.5 % of those over 2 pairs" in page


def test_a_run_of_two_grids_counts_once():
    page = ablations_page([supervision(), supervision(grid="again")], {"supervision": {}, "again": {}})
    assert "Different runs: 6," in page


def test_the_summary_says_what_the_section_says_and_leads_there():
    page = ablations_page([supervision(), views()], {"supervision": {}, "views": {}})
    summary = tables_in(page)[0]
    assert summary[0] == ["grid", "claim", "what was found"]
    assert summary[1][2] == " ".join(say_findings(supervision(), "knn"))
    assert summary[2][1] == "How many stored views"
    for row in summary[1:]:
        anchor = re.search(r"\(#(.+)\)", row[0])[1]
        assert f'<a id="{anchor}"></a>' in page


def test_every_file_is_written_and_every_link_leads_to_one(tmp_path):
    outcomes = [supervision(), views(), averages()]
    paths = written(outcomes, tmp_path)
    made = {
        path for path in tmp_path.rglob("*") if path.is_file() and "runs" not in path.relative_to(tmp_path).parts[:1]
    }
    assert set(paths) == made
    assert len(paths) == len(set(paths))
    names = {str(path.relative_to(tmp_path)) for path in paths}
    assert names >= {
        "ablations.md", "all-runs.csv", "all-runs.parquet", "supervision/table.md", "supervision/runs.csv",
        "supervision/runs.parquet", "supervision/bars-knn.png", "supervision/bars-linear.png", "supervision/curves.png",
        "views/line-knn.png", "averages/heat-knn.png",
    }  # fmt: skip
    linked = set()
    for page in (path for path in paths if path.suffix == ".md"):
        linked |= {page.parent / link for link in images_and_links(page.read_text())}
    assert linked == {path for path in paths if path.suffix == ".png"}


def test_a_metric_of_two_words_has_pictures_that_links_find(tmp_path):
    values = {("a",): {"official linear": (0.5, 0.51)}, ("b",): {"official linear": (0.4, 0.42)}}
    write_pages([make_outcome({"way": ("a", "b")}, values, grid="two words")], tmp_path, pytest.fail)
    page = (tmp_path / "ablations.md").read_text()
    (image,) = (
        child.attrs["src"]
        for token in MarkdownIt().parse(page)
        for child in token.children or ()
        if child.type == "image"
    )
    assert (tmp_path / image.replace("%20", " ")).exists()
    assert "(#two-words)" in page
    assert '<a id="two-words"></a>' in page


def test_all_runs_are_those_of_the_grids_together(tmp_path):
    outcomes = [supervision(), views(), averages()]
    written(outcomes, tmp_path)
    rows = [row for outcome in outcomes for row in rows_of(outcome)]
    table = parquet.read_table(tmp_path / "all-runs.parquet").to_pylist()
    assert [(row["run"], row["metric"], row["value"]) for row in table] == [
        (row["run"], row["metric"], row["value"]) for row in rows
    ]
    with (tmp_path / "all-runs.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == [row["run"] for row in rows]


def test_the_same_outcomes_are_the_same_bytes_again_and_elsewhere(tmp_path):
    outcomes = [supervision(failures={(("masked",), 1): "killed"}), views()]
    one = {path.relative_to(tmp_path / "one"): path.read_bytes() for path in written(outcomes, tmp_path / "one")}
    again = {
        path.relative_to(tmp_path / "one"): path.read_bytes()
        for path in write_pages(outcomes, tmp_path / "one", pytest.fail)
    }
    other = {path.relative_to(tmp_path / "two"): path.read_bytes() for path in written(outcomes, tmp_path / "two")}
    assert one == again == other


def test_without_matplotlib_everything_else_is_written_and_the_page_says_why(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    paths = written([supervision()], tmp_path)
    assert {path.name for path in paths} == {
        "table.md", "runs.csv", "runs.parquet", "all-runs.csv", "all-runs.parquet", "ablations.md",
    }  # fmt: skip
    page = (tmp_path / "ablations.md").read_text()
    assert "There are no pictures here." in page
    assert 'pip install "caev2[plots]"' in page
    assert images_and_links(page) == []


def test_a_grid_of_failures_alone_has_its_page(tmp_path):
    written([supervision(failures=ALL_FAILED)], tmp_path)
    page = (tmp_path / "ablations.md").read_text()
    assert "Failed runs (6)" in page
    assert "so no direction is claimed" in page
    assert not list(tmp_path.rglob("*.png"))


def test_a_damaged_log_is_told_once_and_costs_its_curve_alone(tmp_path):
    outcome = supervision()
    other = dataclasses.replace(outcome, grid="again")  # of the same runs
    write_logs(outcome, tmp_path)
    log = tmp_path / "runs" / outcome.runs[0].fingerprint / "log.jsonl"
    log.write_text("nonsense\n" + log.read_text())
    warnings = []
    paths = write_pages([outcome, other], tmp_path, warnings.append)
    assert {"ablations.md", "supervision/table.md", "again/curves.png"} <= {str(path.relative_to(tmp_path)) for path in paths}  # fmt: skip
    (warning,) = warnings
    assert f"{log} is damaged: line 1" in warning


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "supervision").write_text("a file where a folder belongs")
    with pytest.raises(OutputError, match="supervision"):
        write_pages([supervision()], tmp_path, pytest.fail)
