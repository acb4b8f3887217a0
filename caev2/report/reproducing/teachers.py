"""How to name a teacher whose weights were recorded by their digest: no file says where they lay."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caev2.extract.teachers.known import TEACHERS
from caev2.extract.teachers.names import split_name
from caev2.report.reproducing.commands import say_digest

FILE = "FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedTeacher:
    """What `--teacher` takes."""

    name: str
    crop_px: int | None
    """Side of the crops that it takes if nothing is said; none: its own, which is not known here."""
    note: str | None = None
    """What the name leaves open."""

    @property
    def is_found(self) -> bool:
        """Whether the name alone leads to the weights."""
        return not self.name.endswith(f"@{FILE}")


def name_teacher(recorded: Mapping[str, Any]) -> NamedTeacher:
    """The built-in teacher of the recorded name, or the name with a file.

    Args:
        recorded: Of a store or a run: a name without tag and path, and the sha256 of the weights.
    """
    name, sha256 = str(recorded.get("name", "TEACHER")), recorded.get("sha256")
    for known in TEACHERS:
        if split_name(known.name).canonical == name and known.sha256 in (None, sha256):
            note = f"The weights of {known.name} had the sha256 {say_digest(sha256)}." if known.sha256 is None else None
            return NamedTeacher(name=known.name, crop_px=known.crop_px, note=note)
    note = f"{FILE} holds the weights of the teacher, whose sha256 is {sha256}; or name their published tag instead."
    return NamedTeacher(name=with_file(name), crop_px=None, note=note)


def with_file(name: str) -> str:
    """A teacher's name with FILE in the place of the path of its weights."""
    return f"{name.partition('@')[0]}@{FILE}"
