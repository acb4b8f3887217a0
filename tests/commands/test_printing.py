"""What good input prints, and how commands are left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from caev2.cli import main
from caev2.extract.teachers.catalog import load_teacher, parse_name
from caev2.extract.teachers.known import TEACHERS
from caev2.extract.teachers.names import DEFAULT_TEACHER
from tests.commands.invoking import EXTRACT, caev2, refusal, train


def test_json_is_exactly_one_object(made, images, run, tmp_path):
    outputs = {
        "extract": caev2("extract", images, made / "store", *EXTRACT, "--json"),
        "plan": caev2("extract", images, tmp_path / "new", *EXTRACT, "--json", "--dry-run"),
        "info": caev2("store", "info", made / "store", "--json"),
        "verify": caev2("store", "verify", made / "store", "--json"),
        "pretrain": caev2(*train(made / "store", run, images, "--json")),
        "pretrain plan": caev2(*train(made / "store", tmp_path / "r", images, "--json", "--dry-run")),
        "probe": caev2("probe", run, images, "--kind", "knn", "--json", "--device", "cpu"),
        "recipes": caev2("recipes", "--json"),
        "teachers": caev2("teachers", "--json"),
    }
    found = {}
    for name, result in outputs.items():
        assert result.exit_code == 0, (name, result.output)
        assert result.stdout.count("\n") == 1, name
        found[name] = json.loads(result.stdout)
    assert found["extract"]["rows_computed"] == 0
    assert found["plan"]["rows"] == 20
    assert found["info"]["images"] == 10
    assert found["verify"]["problems"] == []
    assert found["pretrain"]["steps"] == 4
    assert found["pretrain plan"]["resume_step"] == 0
    assert found["probe"]["val_images"] == 4
    assert found["recipes"]["base-300e"]["model"]["depth"] == 12
    assert {path.name for path in tmp_path.iterdir()} == {"run"}  # a plan writes nothing


def test_teachers_lists_what_is_true(made):
    demo = load_teacher("demo").description
    listed = {teacher.name: teacher for teacher in TEACHERS}
    assert (listed["demo"].crop_px, listed["demo"].tokens) == (demo.image_px, demo.tokens)
    assert set(listed["demo"].taps) == set(demo.widths)
    default = listed[DEFAULT_TEACHER]
    assert default.tokens == 1 + (default.crop_px // 16) ** 2
    said = caev2("teachers").stdout
    for teacher in TEACHERS:
        parse_name(teacher.name)
        parse_name(teacher.local_file)
        assert teacher.name in said
        assert teacher.local_file in said


def commands(group: click.Group = main, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [before]
    for name, command in group.commands.items():
        found += commands(command, (*before, name)) if isinstance(command, click.Group) else [(*before, name)]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_one_example_that_parses(command):
    result = caev2(*command, "--help")
    assert result.exit_code == 0
    assert result.stdout.count("Example:") == 1
    words = result.stdout.rpartition("Example:\n")[2].split()
    assert words[: 1 + len(command)] == ["caev2", *command] or not command
    with main.make_context("caev2", words[1:]) as context:
        name, sub, rest = main.resolve_command(context, words[1:])
        while isinstance(sub, click.Group):
            name, sub, rest = sub.resolve_command(context, rest)
        sub.make_context(name or "", rest, parent=context)


def python(script: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_store_info_and_lists_leave_torch_alone(made):
    script = """
import sys
from caev2.cli import main
for words in (["store", "info", sys.argv[1]], ["teachers"], ["--help"]):
    main(words, standalone_mode=False)
assert "torch" not in sys.modules
"""
    done = python(script, made / "store")
    assert done.returncode == 0, done.stderr
    assert "state          sealed" in done.stdout


@pytest.mark.parametrize(
    ("number", "status", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")]
)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_during_extraction_leaves_nothing_half_written_and_the_same_command_goes_on(
    made, tmp_path, number, status, said, workers
):
    caev2_command = Path(sys.executable).with_name("caev2")
    images = tmp_path / "images"
    for image in range(4000):
        images.mkdir(exist_ok=True)
        os.link(made / "images/train/class-0/0.png", images / f"{image:04}.png")
    process = subprocess.Popen(
        [caev2_command, "extract", images, tmp_path / "store", *EXTRACT[:-3], "--device", "cpu",
         "--set", f"workers={workers}"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job inherits it ignored
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list((tmp_path / "store").glob("units/*.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as a terminal does, or a batch system: every process gets it
    out, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in err
    assert err.splitlines()[-1] == f"caev2: {said}. What was finished is kept; the same command goes on."
    assert out == ""
    assert not list((tmp_path / "store").rglob(".tmp/*"))
    assert "is not sealed" in refusal(*train(tmp_path / "store", tmp_path / "run", images))
