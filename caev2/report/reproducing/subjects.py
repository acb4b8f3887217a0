"""Who was judged, in words of `caev2 probe` and `caev2 segment`. Pure."""

from dataclasses import dataclass, field
from typing import Any

from caev2.pretrain.identity import RunIdentity
from caev2.report.reading.files import without_folders
from caev2.report.reading.results import Result
from caev2.report.reproducing.teachers import FILE, with_file

_TIMM = "timm:"
STUDENT, AVERAGED, RANDOM = "student", "student, weights averaged", "random start"
"""What a run's own are called in a result."""
_OF_RECIPE, _OF_FILE, _TEACHER = f"{RANDOM} of ", f"{STUDENT} of ", "teacher "


@dataclass(slots=True)
class Subjects:
    """Words of a command."""

    places: list[str] = field(default_factory=list)
    """Between RUN and IMAGES."""
    options: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What they cannot say."""


def say_subjects(result: Result, identity: RunIdentity | None) -> Subjects:
    """Everybody who was judged beside the run's student.

    Args:
        result: Of a run: its student is always among them.
        identity: Of the run; none: its own teacher is not known.
    """
    said = Subjects()
    names = [entry.name for entry in result.entries]
    only = RANDOM not in names
    for subject in result.content["subjects"]:
        _say_one(subject, identity, only, said)
    sizes = {one.get("crop_px") for one in result.content["subjects"] if one["role"] == "model"} - {None}
    if len(sizes) == 1:
        said.options += ["--size", str(sizes.pop())]
    if only:
        said.options.append("--only")
    if identity is None:
        said.notes.append("What the run is cannot be read, so its own teacher and another one are not told apart.")
    return said


def _say_one(subject: dict[str, Any], identity: RunIdentity | None, only: bool, said: Subjects) -> None:
    role, name = subject["role"], str(subject["name"])
    if role == "pixels":
        said.options += ["--pixels", str(subject["crop_px"])]
    elif role == "model":
        said.places.append(_say_model(subject, said))
    elif name.startswith(_OF_FILE):
        said.places.append(FILE)
        said.notes.append(f"{FILE} is {name.removeprefix(_OF_FILE)}.")
    elif name == AVERAGED:
        said.options.append("--ema")
    elif names_recipe(name):
        said.options += ["--random-init", say_recipe(name, said.notes)]
    elif role == "teacher" and (only or (identity is not None and not is_own_teacher(name, identity))):
        said.options += ["--teacher", say_teacher(name, subject.get("sha256"), said.notes)]


def _say_model(subject: dict[str, Any], said: Subjects) -> str:
    """A model of timm, which without a tag had its weights from a file."""
    name = str(subject["name"])
    if subject.get("sha256"):
        said.notes.append(f"The weights of {name} had the sha256 {subject['sha256']}.")
    return name if "." in name else f"{name}@{FILE}"


def names_recipe(name: str) -> bool:
    """Whether it is the random start of a recipe, and not the run's own or that of a model of timm."""
    return name.startswith(_OF_RECIPE) and not name.startswith(_OF_RECIPE + _TIMM)


def say_recipe(name: str, notes: list[str]) -> str:
    """The recipe of a random start; one of one's own is a file."""
    recipe = name.removeprefix(_OF_RECIPE)
    if not recipe.endswith(".toml"):
        return recipe
    notes.append(f"RECIPE.toml is {recipe}.")
    return "RECIPE.toml"


def say_teacher(name: str, sha256: object, notes: list[str]) -> str:
    """A teacher as `--teacher` takes it, with FILE in the place of a path."""
    teacher = name.removeprefix(_TEACHER)
    if "@" not in teacher:
        return teacher
    notes.append(f"{FILE} holds the teacher’s weights" + (f", whose sha256 is {sha256}." if sha256 else "."))
    return with_file(teacher)


def is_own_teacher(name: str, identity: RunIdentity) -> bool:
    """Whether a name is that of the teacher of the run's store, as results call it."""
    recorded = identity.target.get("teacher", {})
    return name == without_folders(" ".join(["teacher", str(recorded.get("name", ""))]).strip())


def named_file(name: str) -> str | None:
    """The file that a student is of; none: it is a run's."""
    return name.removeprefix(_OF_FILE) if name.startswith(_OF_FILE) else None
