"""`--part i/n`: one of several commands that share the units of a store between them, as in a batch queue's array."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from caev2.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Part:
    """The part `number` of `count`, counted from 1."""

    number: int
    count: int

    def __post_init__(self):
        """Check the range.

        Raises:
            ConfigError: There is no such part.
        """
        if self.count < 1:
            raise ConfigError(f"--part {self.number}/{self.count}: there is at least one part.")
        if not 1 <= self.number <= self.count:
            raise ConfigError(
                f"There is no part {self.number} of {self.count}: they are counted from 1/{self.count} to "
                f"{self.count}/{self.count}."
            )

    def choose(self, blocks: Sequence[int], of: int) -> list[int]:
        """Those of some blocks that belong to this part: neighbours, so that tars are read from front to back.

        Args:
            blocks: To choose from.
            of: How many blocks the store has.
        """
        own = range(of * (self.number - 1) // self.count, of * self.number // self.count)
        return sorted(block for block in blocks if block in own)


def parse_part(text: str) -> Part:
    """`2/8` as a part.

    Raises:
        ConfigError: It is none.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found:
        raise ConfigError(f"--part is {text!r}; give it as 2/8, the second of eight.")
    return Part(int(found[1]), int(found[2]))
