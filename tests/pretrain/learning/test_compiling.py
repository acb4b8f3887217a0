"""Whether steps are compiled, by what the recipe says and what the machine has."""

import dataclasses
import sysconfig

import pytest

from caev2.errors import ConfigError
from caev2.pretrain.learning.compiling import compiles, missing_for
from caev2.progress import Silent
from tests.made_up_pretrain import PRETRAIN

UNSAID, WANTED, UNWANTED = (dataclasses.replace(PRETRAIN, compile=said) for said in (None, True, False))


class Warned(Silent):
    """Keeps what it is warned of."""

    def __init__(self):
        self.messages: list[str] = []

    def warn(self, message: str) -> None:
        self.messages.append(message)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with these programs, and Python's headers or not."""

    def have(*programs: str, headers: bool = True) -> None:
        for name in programs:
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)
        (tmp_path / "Python.h").touch() if headers else None
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})

    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    return have


@pytest.mark.parametrize(
    ("recipe", "on_cpu", "on_gpu"), [(UNSAID, False, True), (WANTED, True, True), (UNWANTED, False, False)]
)
def test_the_recipe_says_and_else_the_device(machine, recipe, on_cpu, on_gpu):
    machine("gcc", "g++")
    warned = Warned()
    assert compiles(recipe, "cpu", warned) is on_cpu
    assert compiles(recipe, "cuda:0", warned) is on_gpu
    assert warned.messages == []


def test_without_a_compiler_steps_on_a_gpu_are_not_compiled_and_one_is_told(machine):
    machine("g++")
    warned = Warned()
    assert not compiles(UNSAID, "cuda", warned)
    assert "a C compiler (apt install build-essential)" in warned.messages[0]
    assert not compiles(UNSAID, "cpu", warned)
    assert len(warned.messages) == 1


def test_compiled_steps_that_were_asked_for_are_refused_without_a_compiler_or_headers(machine, monkeypatch):
    machine("gcc", headers=False)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler"):
        compiles(WANTED, "cpu", Silent())
    with pytest.raises(ConfigError, match="Python's headers"):
        compiles(WANTED, "cuda", Silent())
    monkeypatch.setenv("CC", "icc")
    assert missing_for(on_gpu=True) == "a C compiler (CC=icc is none)"
