"""What a command is: its words, what it makes, and what its line cannot say. Pure."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from caev2.errors import ConfigError

_LETTERS = 12
"""Of a digest, which are enough to tell images apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One line for a shell, and what it makes."""

    makes: str
    words: tuple[str, ...]
    """After `caev2`; folders are called IMAGES, STORE, RUN, ..."""
    notes: tuple[str, ...] = ()
    """What the line cannot say."""

    @property
    def line(self) -> str:
        """As one types it."""
        return shlex.join(("caev2", *self.words))


def sets(settings: Iterable[str]) -> list[str]:
    """Settings as words of a command."""
    return [word for setting in settings for word in ("--set", setting)]


def unknown(makes: str, problem: ConfigError, *words: str) -> Command:
    """A command whose settings cannot be told."""
    return Command(makes=makes, words=words, notes=(f"The recipe that was recorded is of another version: {problem}",))


def options(pairs: Iterable[tuple[str, Any, Any]]) -> list[str]:
    """Options whose value is not the default."""
    return [word for name, value, default in pairs if value != default for word in (name, str(value))]


def say_digest(digest: object) -> str:
    """The beginning of a digest, which tells it from others."""
    return f"{str(digest)[:_LETTERS]}…"


def demo_command(demo: dict[str, Any]) -> Command:
    """All of a demo at once."""
    words = [*(["--quick"] if demo.get("quick") else []), *options([("--seed", demo.get("seed", 0), 0)])]
    return Command(makes="everything here at once", words=("demo", "--out", "OUT", *words))
