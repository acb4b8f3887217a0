"""What people see: progress on narrow, wide and no terminals, tables, sizes."""

import io
import json
import re

import pytest
from rich.console import Console

from caev2.terminal import Bars, compose_line, print_facts, print_json, print_table

FIGURES = {
    "loss": 0.4123,
    "cosine_class": 0.7,
    "cosine_visible": 0.65,
    "cosine_masked": 0.6,
    "images_per_s": 1234.5,
    "epoch": 3,
    "data_wait_percent": 1.6,
    "mfu_percent": 47.1,
    "lr": 1.5e-3,
}


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def draw(width: int, *, terminal: bool = True, **options) -> tuple[Bars, Console, Clock]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    clock = Clock()
    return Bars(console=console, clock=clock, **options), console, clock


def text_of(console: Console) -> str:
    """What was written, without control codes."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())  # type: ignore[attr-defined]


def last_line(console: Console) -> str:
    return [line for line in re.split(r"[\r\n]+", text_of(console)) if line.strip()][-1]


def train_for_a_while(bars: Bars, clock: Clock) -> None:
    bars.start("pretrain", 103_125, 100)
    for _ in range(20):
        clock.now += 0.5
        bars.advance(1)
    bars.advance(0, **FIGURES)


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (60, ["pretrain", "120/103,125", "0.1 %", "eta 14:18:"]),
        (80, ["pretrain", "120/103,125", "0.1 %", "eta 14:18:", "loss 0.412", "1,234 img/s"]),
        (140, ["epoch 3", "cos masked 0.600", "cos visible 0.650", "cos class 0.700", "━", "╌"]),
        (180, ["cos class 0.700", "data wait 2 %", "MFU 47 %", "lr 1.5e-03", "━", "╌"]),
    ],
)
def test_a_line_says_what_matters_and_fits_the_terminal(width, shown):
    bars, console, clock = draw(width)
    train_for_a_while(bars, clock)
    bars.start("pretrain", 1000, 500)  # ends the line before: its last state is on the screen
    first = next(line for line in re.split(r"[\r\n]+", text_of(console)) if "120/103,125" in line)
    for part in shown:
        if part not in ("━", "╌"):
            assert part in first
    assert len(first) <= width
    bars.finish()
    if "━" in shown:
        assert "━" in last_line(console)
        assert "╌" in last_line(console)


@pytest.mark.parametrize("width", range(10, 200, 7))
def test_no_width_makes_a_line_too_long_or_cuts_a_part_in_two(width):
    parts = ["12/40", "30 %", "21.3/s", "eta 0:00:03", "loss 0.412", "cos masked 0.600"]
    line = compose_line("extract", parts, 0.3, width)
    assert len(line) <= width
    pieces = [piece for piece in line.split("  ")[1:] if not set(piece) <= set("━╌")]
    assert pieces == parts[: len(pieces)]
    assert len(pieces) == len(parts) or width < 80


def test_a_long_run_with_all_its_figures_shows_the_most_telling_on_80_columns():
    bars, console, clock = draw(80)
    bars.start("pretrain", 187_500, 100_000)
    clock.now += 700
    bars.advance(100)
    bars.advance(0, **FIGURES | {"images_per_s": 292.6})
    bars.finish()
    line = last_line(console)
    assert line == "pretrain  100,100/187,500  53.3 %  eta 7 d 1 h  loss 0.412  293 img/s  epoch 3"
    assert len(line) < 80


def test_figures_that_nobody_knows_come_last():
    bars, console, clock = draw(120)
    bars.start("pretrain", 10)
    clock.now += 1
    bars.advance(1, other=7, knn=0.5, loss=1.0)
    bars.finish()
    assert last_line(console).endswith("loss 1.000  other 7  knn 0.500")


def test_a_finished_line_says_how_long_it_took():
    bars, console, clock = draw(80)
    bars.start("extract", 10)
    clock.now += 90
    bars.advance(10)
    bars.finish()
    assert "10/10" in last_line(console)
    assert "100 %" in last_line(console)
    assert "took 0:01:30" in last_line(console)


def test_slow_work_is_told_in_seconds_for_each_item():
    bars, console, clock = draw(80)
    bars.start("pretrain", 100)
    for _ in range(3):
        clock.now += 4
        bars.advance(1)
    bars.finish()
    assert "4.0 s each" in last_line(console)


def test_the_rate_counts_from_the_begin_though_all_items_come_at_once():
    bars, console, clock = draw(80)
    bars.start("extract", 20)
    clock.now += 9
    bars.advance(8)
    clock.now += 0.001
    bars.advance(8)
    bars.finish()
    assert "1.8/s" in last_line(console)
    assert "eta 0:00:02" in last_line(console)


def test_the_rate_forgets_what_was_long_ago():
    bars, console, clock = draw(80)
    bars.start("extract", 1000)
    for seconds in [10.0] * 10 + [1.0] * 100:
        clock.now += seconds
        bars.advance(1)
    bars.finish()
    assert "1.0/s" in last_line(console)
    assert "eta 0:14:50" in last_line(console)


def test_work_of_no_items_is_no_error():
    bars, console, _ = draw(80)
    bars.start("extract", 0)
    bars.advance(0)
    bars.finish()
    assert "0/0" in last_line(console)


def test_without_a_terminal_lines_come_every_tenth_and_hold_no_control_codes():
    bars, console, clock = draw(80, terminal=False)
    bars.start("pretrain", 100)
    for step in range(100):
        clock.now += 1
        bars.advance(1, loss=1 - step / 100)
    bars.finish()
    written = console.file.getvalue()  # type: ignore[attr-defined]
    lines = written.splitlines()
    assert "\x1b" not in written
    assert len(lines) == 10
    assert lines[4].startswith("pretrain:  50/100, 50 %, 1.0/s, eta 0:00:50, loss 0.510")
    assert lines[-1].startswith("pretrain: 100/100, 100 %, 1.0/s, took 0:01:40")


def test_without_a_terminal_slow_work_gives_a_sign_of_life_every_half_minute():
    bars, console, clock = draw(80, terminal=False)
    bars.start("extract", 1_000_000)
    for _ in range(120):
        clock.now += 1
        bars.advance(1)
    assert len(text_of(console).splitlines()) == 4


def test_without_a_terminal_work_of_a_moment_is_one_line_however_wide():
    bars, console, clock = draw(20, terminal=False)
    bars.start("features of a subject with a long name", 40)
    for _ in range(40):
        clock.now += 0.001
        bars.advance(1)
    bars.finish()
    assert len(text_of(console).splitlines()) == 1


def test_quiet_shows_warnings_only():
    bars, console, _ = draw(80, quiet=True)
    bars.start("extract", 10)
    bars.advance(10)
    bars.warn("look [out]")
    bars.finish()
    assert text_of(console) == "warning: look [out]\n"


def test_a_warning_is_given_once_for_each_message_and_terminal():
    bars, console, _ = draw(80, terminal=False)
    for message in ("one", "other", "one"):
        bars.warn(message)
    assert text_of(console) == "warning: one\nwarning: other\n"
    again, other_console, _ = draw(80, terminal=False)
    again.warn("one")
    assert text_of(other_console) == "warning: one\n"


def test_json_is_one_object_on_one_line(capsys):
    print_json({"name": "é", "path": io})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out)["name"] == "é"


def test_facts_and_tables_hold_what_they_are_given(capsys):
    print_facts("Store", {"images": 3, "state": "sealed"})
    print_table("Recipes", ("name", "pixels"), [("tiny", "224"), ("large", "1024")])
    out = capsys.readouterr().out
    assert out.startswith("Store\n  images  3\n  state   sealed\n")
    assert "tiny" in out
    assert " 224 " in out
