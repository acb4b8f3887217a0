"""Where figures go, read back by those they are written for."""

import json
import math
import struct
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from caev2.errors import ConfigError, OutputError
from caev2.pretrain.telling.log import read_log
from caev2.pretrain.telling.loggers import Logger, Loggers, open_loggers


def record(step: int, loss: float = 0.5, **more) -> dict:
    return {"step": step, "epoch": step // 4, "lr": 1e-3 * step, "loss": loss, "applied": True, **more}


def write(run: Path, from_step: int, *records: dict, **options) -> None:
    logger = open_loggers(run, from_step, **options)
    for one in records:
        logger.write(one)
    logger.flush()
    logger.close()


def shown(run: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard shows of a figure."""
    accumulator = EventAccumulator(str(run / "tensorboard"))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(name)]


@pytest.fixture
def run(tmp_path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_tensorboard_shows_what_the_log_holds(run):
    write(run, 0, *(record(step, loss=1 / (1 + step)) for step in range(5)))
    assert [one["step"] for one in read_log(run)] == [0, 1, 2, 3, 4]
    assert shown(run, "loss") == [(step, pytest.approx(1 / (1 + step))) for step in range(5)]
    assert shown(run, "lr")[4] == (4, pytest.approx(4e-3))
    assert shown(run, "applied")[0] == (0, 1.0)


def test_steps_that_are_trained_again_are_shown_once(run):
    write(run, 0, *(record(step, loss=1.0) for step in range(6)))
    write(run, 4, *(record(step, loss=2.0) for step in range(4, 8)))
    expected = [(step, 1.0 if step < 4 else 2.0) for step in range(8)]
    assert shown(run, "loss") == expected
    assert [(one["step"], one["loss"]) for one in read_log(run)] == expected


def test_a_run_that_begins_again_shows_nothing_of_before(run):
    write(run, 0, record(0, loss=1.0), record(1, loss=1.0))
    write(run, 0, record(0, loss=2.0))
    assert shown(run, "loss") == [(0, 2.0)]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_break_nothing(run, number):
    write(run, 0, record(0), record(1, loss=number, grad_norm=number), record(2, mfu_percent=None, note="words"))
    assert read_log(run)[1]["loss"] is None
    values = [value for _, value in shown(run, "loss")]
    assert [values[0], values[2]] == [0.5, 0.5]
    assert values[1] == number or (math.isnan(number) and math.isnan(values[1]))


def test_what_was_written_outlives_a_process_that_does_not_close(run):
    logger = open_loggers(run, 0)
    logger.write(record(0))
    logger.flush()
    assert shown(run, "loss") == [(0, 0.5)]
    assert len(read_log(run)) == 1
    logger.close()


def test_without_tensorboard_there_is_the_log_alone(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as Python marks what cannot be imported
    write(run, 0, record(0))
    assert [path.name for path in run.iterdir()] == ["log.jsonl"]


def test_a_folder_that_cannot_be_made_is_told(run):
    (run / "tensorboard").write_text("a file")
    with pytest.raises(OutputError, match=r"Cannot write .*tensorboard"):
        open_loggers(run, 0)


class Remembering:
    """A logger that keeps what it is told, and may fail when it is closed."""

    def __init__(self, fails: bool = False):
        self.told, self.fails = [], fails

    def write(self, record: dict) -> None:
        self.told.append(record["step"])

    def flush(self) -> None:
        self.told.append("flush")

    def close(self) -> None:
        self.told.append("close")
        if self.fails:
            raise OutputError("no space")


def test_all_are_told_and_all_are_closed_though_one_fails():
    one, other = Remembering(fails=True), Remembering()
    both = Loggers([one, other])
    assert isinstance(both, Logger)
    both.write(record(7))
    both.flush()
    with pytest.raises(OutputError, match="no space"):
        both.close()
    assert one.told == other.told == [7, "flush", "close"]


def test_a_project_without_the_package_is_refused_with_the_command_that_installs_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"--wandb students needs the package wandb.*pip install 'caev2\[wandb\]'"):
        open_loggers(run, 0, wandb="students")
    assert list(run.iterdir()) == []


def records_of(path: Path) -> list:
    """The records in an offline run's file: blocks of 32 KiB, as LevelDB has them in its log."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, part, found = path.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            found.append(Record())
            found[-1].ParseFromString(part)
            part = b""
    return found


def sent(run: Path) -> list[list]:
    """What each offline run of Weights & Biases holds; its own process writes it to the end, a moment later."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = [records_of(path) for path in sorted(run.glob("wandb/offline-run-*/run-*.wandb"))]
        if all(records and records[-1].WhichOneof("record_type") == "exit" for records in found):
            return found
        time.sleep(0.1)
    raise AssertionError("an offline run does not end")


def histories(records: list) -> list[dict]:
    lines = [one.history for one in records if one.WhichOneof("record_type") == "history"]
    return [{item.key or item.nested_key[0]: json.loads(item.value_json) for item in line.item} for line in lines]


def test_weights_and_biases_gets_the_same_figures_and_goes_on_with_its_run(run, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(run / "config"))
    write(run, 0, record(0), record(1, loss=math.nan), wandb="students", about={"batch_size": 4})
    kept = json.loads((run / "wandb.json").read_bytes())
    write(run, 1, record(1), record(2), wandb="students")
    assert json.loads((run / "wandb.json").read_bytes()) == kept
    first, second = sent(run)
    runs = [one.run for records in (first, second) for one in records if one.WhichOneof("record_type") == "run"]
    assert {(one.project, one.run_id) for one in runs} == {("students", kept["id"])}
    assert [line["step"] for line in histories(first)] == [0, 1]
    assert [(line["step"], line["loss"]) for line in histories(second)] == [(1, 0.5), (2, 0.5)]
    assert math.isnan(float(histories(first)[1]["loss"]))
    assert len(read_log(run)) == 3
    assert not Path("wandb").exists(), "it writes to the folder of the run alone"


def test_another_project_gets_a_run_of_its_own(run, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    write(run, 0, record(0), wandb="students")
    first = json.loads((run / "wandb.json").read_bytes())
    write(run, 1, record(1), wandb="others")
    second = json.loads((run / "wandb.json").read_bytes())
    assert (first["project"], second["project"]) == ("students", "others")
    assert first["id"] != second["id"]
