"""Tidy tables: what goes in comes out, of CSV and of Parquet alike."""

import csv
import io
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from caev2.ablate.tables import FIXED, columns_of, csv_of, flatten, parquet_of, rows_of, write_rows
from caev2.errors import OutputError
from tests.ablate.made_up import RECIPE, averages, supervision, views

settings = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5)
lists_of_one_kind = st.sampled_from(
    [st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False), st.text()]
)
columns = lists_of_one_kind.flatmap(lambda kind: st.lists(st.none() | kind, min_size=1, max_size=5))


def from_csv(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def from_parquet(content: bytes) -> pa.Table:
    return parquet.read_table(io.BytesIO(content))


def test_a_row_for_each_run_and_metric():
    outcome = supervision()
    rows = rows_of(outcome)
    assert [(row["run"], row["metric"]) for row in rows] == [
        (run.name, metric) for run in outcome.runs for metric in outcome.metrics
    ]
    for row in rows:
        run = next(run for run in outcome.runs if run.name == row["run"])
        score = run.scores[row["metric"]]
        assert (row["value"], row["low"], row["high"]) == (score.value, score.low, score.high)
        assert (row["seed"], row["fingerprint"], row["store"]) == (run.seed, run.fingerprint, "full")
        assert row["axis.tokens"] == run.settings["tokens"]
        assert row["recipe.loss.distance"] == "cosine"


def test_fixed_columns_lead_then_axes_then_the_recipe():
    names = columns_of(rows_of(averages()))
    assert names[: len(FIXED)] == list(FIXED)
    assert names[len(FIXED) : len(FIXED) + 2] == ["axis.mask", "axis.average"]
    assert set(names[len(FIXED) + 2 :]) == {*flatten(RECIPE, "recipe."), "recipe.seed"}


def test_a_failed_run_has_every_row_without_values():
    rows = [
        row for row in rows_of(supervision(failures={(("visible",), 1): 'said: "no, memory"\nthen ended'}))
        if row["variant"] == "tokens=visible" and row["seed"] == 1
    ]  # fmt: skip
    assert [row["metric"] for row in rows] == ["knn", "linear", "loss", "cosine_masked"]
    for found in (from_parquet(parquet_of(rows)).to_pylist(), from_csv(csv_of(rows))):
        assert {row["failure"] for row in found} == {'said: "no, memory"\nthen ended'}
        assert not any(row["value"] for row in found)


def test_parquet_keeps_types_and_columns_without_values():
    found = from_parquet(parquet_of(rows_of(views()))).schema
    kinds = {name: str(found.field(name).type) for name in found.names}
    assert {name: kinds[name] for name in FIXED} == FIXED
    assert kinds["recipe.views"] == "null"
    assert kinds["recipe.epochs"] == "int64"
    assert kinds["recipe.optimizer.lr"] == "double"
    assert kinds["recipe.optimizer.betas"] == "string"


def test_a_list_is_one_setting():
    assert json.loads(flatten(RECIPE, "recipe.")["recipe.optimizer.betas"]) == [0.9, 0.999]


def test_csv_and_parquet_say_the_same():
    rows = [*rows_of(supervision()), *rows_of(views()), *rows_of(averages())]
    table, lines = from_parquet(parquet_of(rows)).to_pylist(), from_csv(csv_of(rows))
    assert len(table) == len(lines) == len(rows)
    for one, line, row in zip(table, lines, rows, strict=True):
        assert {name: value for name, value in one.items() if value is not None} == {
            name: value for name, value in row.items() if value is not None
        }
        assert {name for name, text in line.items() if text} == {name for name in row if row[name] is not None}
        assert not line["value"] or float(line["value"]) == row["value"]


@given(columns)
def test_values_of_one_kind_come_back_as_they_were(values):
    rows = [{**dict.fromkeys(FIXED), "axis.x": value} for value in values]
    found = from_parquet(parquet_of(rows)).column("axis.x").to_pylist()
    assert found == values
    assert [type(one) for one in found] == [type(one) for one in values]


@given(st.lists(settings, min_size=1, max_size=6))
def test_values_of_any_kind_have_a_column(values):
    rows = [{**dict.fromkeys(FIXED), "axis.x": value} for value in values]
    found = from_parquet(parquet_of(rows)).column("axis.x").to_pylist()
    assert [one is None for one in found] == [value is None for value in values]


def test_whole_and_broken_numbers_share_a_column_of_numbers():
    rows = [{**dict.fromkeys(FIXED), "axis.x": value} for value in (1, 0.5, None)]
    assert from_parquet(parquet_of(rows)).column("axis.x").to_pylist() == [1.0, 0.5, None]


def test_the_same_rows_are_the_same_bytes(tmp_path):
    one, other = (write_rows(rows_of(supervision()), tmp_path / name, "runs") for name in ("one", "other"))
    assert [path.name for path in one] == ["runs.csv", "runs.parquet"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert b"\r" not in one[0].read_bytes()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_rows(rows_of(supervision()), tmp_path / "file" / "below", "runs")
