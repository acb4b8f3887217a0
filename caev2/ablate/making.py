"""How a store of a study is made, for the message about one that is missing."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_STORE = "views"
"""The store of a study that is used where nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMaking:
    """How a store of a study is made, for whoever lacks it."""

    convert: str | None = None
    """Codec that another store's rows are encoded in."""
    of: str = DEFAULT_STORE
    """That other store."""
    targets: tuple[str, ...] = ()
    """Those of its targets that are encoded; none: all."""
    any_quality: bool = False
    """Whether the codec is taken whatever it loses, because that is what is measured."""
    extract: tuple[str, ...] = ()
    """Further words of `caev2 extract`."""
    built_in: bool = False
    """Whether it is one of the built-in study, which one command makes as a whole."""

    def command(self, study: str, name: str, images: str) -> str:
        """What makes the store `name`, quoted for a shell."""
        if self.built_in:
            return _make_built_in(Path(study))
        if self.convert is None:
            return shlex.join(["caev2", "extract", images, f"{study}/{name}", *self.extract])
        command = ["caev2", "store", "convert", f"{study}/{self.of}", f"{study}/{name}", "--codec", self.convert]
        command += ["--targets", ",".join(self.targets)] if self.targets else []
        return shlex.join([*command, "--any-quality"] if self.any_quality else command)


def with_sources(names: Iterable[str], stores: Mapping[str, StoreMaking]) -> dict[str, StoreMaking]:
    """How some stores are made, those before them that they are converted from; not those that nobody says how to make.

    Args:
        names: Of the stores.
        stores: How stores are made, by name.
    """
    found: dict[str, StoreMaking] = {}
    for name in names:
        making = stores.get(name)
        if making is None:
            continue
        if making.convert is not None:
            found = {**found, **with_sources([making.of], stores)}
        found[name] = making
    return found


def _make_built_in(study: Path) -> str:
    """The command gives its study a name of its own; where another was asked for, a comment says which."""
    command = shlex.join(["caev2", "demo", "--study", "--out", str(study.parent)])
    made = study.parent / "study"
    return command if study == made else f"{command}  # makes {made}: give that in the place of {study}"
