"""How a store of a study is made, for the message about one that is missing."""

import shlex
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
    extract: tuple[str, ...] = ()
    """Further words of `caev2 extract`."""
    built_in: bool = False
    """Whether it is one of the built-in study, which one command makes as a whole."""

    def command(self, study: str, name: str, images: str) -> str:
        """What makes the store `name`."""
        if self.built_in:
            return f"caev2 demo --study --out {Path(study).parent}"
        if self.convert is not None:
            return f"caev2 store convert {study}/{self.of} {study}/{name} --codec {self.convert}"
        return " ".join(["caev2 extract", images, f"{study}/{name}", *map(shlex.quote, self.extract)])
