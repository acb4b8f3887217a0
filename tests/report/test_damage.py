"""Whatever one value of one file becomes, the page is written, and what is not damaged is on it."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caev2.ablate.outcome import read_outcome
from caev2.errors import ConfigError
from caev2.report.run import report
from tests.report.reading_pages import Page

FILES = (
    "scenes/run/run.json", "scenes/run/result.json", "scenes/run/segmentation.json", "scenes/run/log.jsonl",
    "scenes/run/finetuned/student/result.json", "scenes/run/finetuned/student/finetune.json",
    "scenes/store/manifest.json", "scenes/store/targets/projected/codec/quality.json", "study/supervision/outcome.json",
)  # fmt: skip
DROPPED = object()
OTHERS = (DROPPED, None, "x", "\ud800", 3, -1, 2.5, math.nan, math.inf, True, [], ["x"], {}, {"a": 1}, [[]], 10**30)


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory) -> Path:
    """A copy whose log is short and which has no pictures."""
    place = shutil.copytree(made, tmp_path_factory.mktemp("damage") / "made")
    shutil.rmtree(place / "scenes" / "run" / "pictures")
    log = place / "scenes" / "run" / "log.jsonl"
    log.write_text("\n".join(log.read_text().splitlines()[:16]) + "\n")
    return place


def places(content: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where a value may be changed: of a list its first two alone."""
    pairs = content.items() if isinstance(content, dict) else list(enumerate(content))[:2]
    for key, value in pairs:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(content: Any, path: tuple, value: Any) -> Any:
    """The same content with another value at one place."""
    content = json.loads(json.dumps(content))
    within = content
    for key in path[:-1]:
        within = within[key]
    if value is DROPPED:
        del within[path[-1]]
    else:
        within[path[-1]] = value
    return content


def read(path: Path) -> Any:
    lines = path.read_text()
    return [json.loads(line) for line in lines.splitlines()] if path.suffix == ".jsonl" else json.loads(lines)


def write(path: Path, content: Any) -> None:
    lines = content if path.suffix == ".jsonl" else [content]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_value_that_is_missing_or_another_leaves_a_page_of_the_rest(folder, data):
    path = folder / data.draw(st.sampled_from(FILES), label="file")
    before, content = path.read_bytes(), read(path)
    place = data.draw(st.sampled_from(list(places(content))), label="place")
    try:
        write(path, changed(content, place, data.draw(st.sampled_from(OTHERS), label="value")))
        result = report([folder / "scenes", folder / "study"], folder / "page.html")
    finally:
        path.write_bytes(before)
    page = Page((folder / "page.html").read_bytes())
    assert len(page.by_id) == 9
    assert {"summary", "probes", "provenance", "environment"} <= {
        name for name, is_filled in result.sections.items() if is_filled
    }
    assert "Fine-tuned" in page.by_id["probes"]


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("result.json", ("seed",), DROPPED),
        ("result.json", ("run", "step"), "10"),
        ("result.json", ("subjects", 1, "crop_px"), DROPPED),
        ("result.json", ("subjects", 2, "per_class", "linear", 0), math.nan),
        ("result.json", ("subjects", 2, "accuracy", "knn", "value"), math.inf),
        ("segmentation.json", ("ignore",), DROPPED),
        ("finetuned/student/result.json", ("subjects",), []),
        ("finetuned/student/result.json", ("subjects", 0, "protocol"), []),
    ],
)
def test_a_damaged_result_is_named_and_the_others_are_shown(run, tmp_path, name, place, value):
    write(run / name, changed(read(run / name), place, value))
    shutil.rmtree(run / "results")
    result = report([run], tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_bytes())
    assert f"{name} is not what caev2 writes" in page.by_id["probes"]
    assert result.sections["reproduce"]
    shown = {"result.json": "Segmentation on frozen tokens"}.get(name, "Probes of frozen features")
    assert shown in page.by_id["probes"]


def test_half_a_character_in_a_name_and_infinity_in_a_log_are_shown_as_what_they_are(run, tmp_path):
    write(run / "result.json", changed(read(run / "result.json"), ("classes", 0), "\ud800x"))
    write(run / "log.jsonl", changed(read(run / "log.jsonl"), (3, "loss"), math.inf))
    result = report([run], tmp_path / "page.html")
    assert result.sections["curves"]
    assert "?x" in Page((tmp_path / "page.html").read_bytes()).by_id["probes"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("runs", 0, "scores", "knn", "value"), None),
        (("runs", 0, "scores", "knn", "value"), "0.5"),
        (("runs", 0, "scores", "knn", "low"), []),
        (("runs", 0, "fingerprint"), 3),
        (("runs", 0, "seed"), True),
        (("runs", 0, "recipe"), []),
        (("val_images",), "5000"),
        (("quick",), "yes"),
        (("seeds", 0), "0"),
        (("axes", 0, "values", 0), 1),
    ],
)
def test_an_outcome_with_a_value_of_another_type_is_refused_and_is_a_gap(study, tmp_path, place, value):
    path = study / "supervision" / "outcome.json"
    write(path, changed(read(path), place, value))
    with pytest.raises(ConfigError, match="is not what `caev2 ablate` writes"):
        read_outcome(path.parent)
    report([study], tmp_path / "page.html")
    assert "outcome.json is damaged" in Page((tmp_path / "page.html").read_bytes()).by_id["ablations"]
