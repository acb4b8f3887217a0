"""Who takes part in a comparison, before anybody's weights are loaded.

A number of a student means little by itself: beside it belong its own random start (what the architecture gives away
for free) and the teacher of its targets (what there was to learn).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from caev2.errors import Caev2Error, CheckpointError
from caev2.eval.features import Subject
from caev2.eval.shares import BY_ITSELF
from caev2.eval.subjects import (
    find_checkpoint,
    load_student,
    pixel_subject,
    student_subject,
    teacher_subject,
)
from caev2.extract.teachers.catalog import load_teacher, parse_name
from caev2.extract.teachers.recorded import load_recorded_teacher
from caev2.pretrain.identity import RunIdentity
from caev2.pretrain.recipes import RECIPES
from caev2.pretrain.student.model import build
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.together.ranks import Company
from caev2.recipe import fingerprint, load, to_mapping
from caev2.store.pixels.decode import Orientation

Role = Literal["pixels", "random start", "student", "model", "teacher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """Somebody who is judged when its turn comes: at any time the weights of one are in memory."""

    role: Role
    name: str
    open: Callable[[str], Subject]
    """Loads it on a device."""
    may_be_missing: bool = False
    """Whether a comparison goes on without it, saying why."""


_HOPE: tuple[Role, ...] = ("pixels", "random start", "student", "model", "teacher")  # the least one may hope for first


def in_order_of_hope(entrants: Sequence[Entrant]) -> list[Entrant]:
    """The lines of a table: pixels, random starts, students, foreign models, teachers."""
    return sorted(entrants, key=lambda entrant: _HOPE.index(entrant.role))


def reason_missing(entrant: Entrant, device: str) -> str | None:
    """Open somebody and let go again: weights that cannot be used are found before time is spent on others."""
    try:
        entrant.open(device)
    except Caev2Error as problem:
        if not entrant.may_be_missing:
            raise
        return str(problem)
    return None


def reasons_missing(entrants: Sequence[Entrant], device: str, company: Company = BY_ITSELF) -> list[str | None]:
    """Of each, why it is missing, or none: missing at one rank is missing.

    Raises:
        Caev2Error: Somebody cannot be opened, and may not be missing.
    """
    found = company.together(lambda: [reason_missing(entrant, device) for entrant in entrants])
    by_rank = company.collect(found)
    return company.first(lambda: [next(filter(None, of_one), None) for of_one in zip(*by_rank, strict=True)])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Which weights a student is, and what they learnt from; no path, host or time."""

    fingerprint: str
    """Of `run.json`."""
    step: int
    """Steps that were done."""
    checkpoint_sha256: str
    """Of the checkpoint's file."""
    store_fingerprint: str
    store_digest: str
    """Root digest of the store."""
    target: dict[str, Any]
    """Teacher with its sha256, tap, tokens and width; empty for a run made from a foreign checkpoint."""


def sha256_of_file(path: Path) -> str:
    """Digest of a checkpoint's file, which is read once for every version of it.

    Raises:
        CheckpointError: It was removed meanwhile.
    """
    try:
        found = path.stat()
        return _sha256(path, (found.st_size, found.st_mtime_ns))
    except OSError as problem:
        raise CheckpointError(
            f"{path} cannot be read: {problem.strerror}. If training goes on, a later one has taken its place: run "
            "the same command again."
        ) from None


@cache
def _sha256(path: Path, stamp: tuple[int, int]) -> str:
    del stamp  # a file that was written to is another one
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEntry:
    """A run at its latest checkpoint."""

    identity: RunIdentity
    checkpoint: Path
    step: int

    @classmethod
    def find(cls, run: Path) -> "RunEntry":
        """Look a run up; its weights are not read yet.

        Raises:
            CheckpointError: There is no run, or it has no checkpoint.
        """
        identity, checkpoint = find_checkpoint(run)
        return cls(identity=identity, checkpoint=checkpoint.path, step=checkpoint.step)

    @property
    def orientation(self) -> Orientation:
        """The EXIF rule that the student's crops were cut by."""
        return self.identity.views.get("orientation", "exif")

    def facts(self) -> RunFacts:
        """Which weights these are.

        Raises:
            CheckpointError: The checkpoint was removed meanwhile.
        """
        return RunFacts(
            fingerprint=self.identity.fingerprint(),
            step=self.step,
            checkpoint_sha256=sha256_of_file(self.checkpoint),
            store_fingerprint=self.identity.store_fingerprint,
            store_digest=self.identity.store_digest,
            target=self.identity.target,
        )

    def student(self, *, averaged: bool = False) -> Entrant:
        """The run itself; with `averaged`, the moving average of its weights."""
        name = "student, weights averaged" if averaged else "student"

        def open_it(device: str) -> Subject:
            model = load_student(self.identity, self.checkpoint, device, averaged=averaged)
            return student_subject(model, name, f"checkpoint {sha256_of_file(self.checkpoint)} {averaged}")

        return Entrant(role="student", name=name, open=open_it)

    def random_start(self) -> Entrant:
        """The student as it was before its first step; seed 0 for a run made from a foreign checkpoint."""
        return _random_start(self.identity.model, self.identity.recipe.get("seed", 0), "random start")

    def teacher(self, named: str | None = None) -> Entrant:
        """The teacher of the run's store.

        Args:
            named: Where its weights are known to be; without it the comparison goes on if they are nowhere.
        """
        target = self.identity.target
        recorded = target.get("teacher", {})
        name = " ".join(["teacher", recorded.get("name", "")]).strip()

        def open_it(device: str) -> Subject:
            teacher = load_recorded_teacher(recorded, device, [named] if named else [])
            return teacher_subject(teacher, name, target["tap"])

        return Entrant(role="teacher", name=name, open=open_it, may_be_missing=named is None)

    def teachers(self, named: str) -> list[Entrant]:
        """The teacher of the run's store and a named one: one entrant if they are the same."""
        sha256 = load_teacher(named).description.sha256
        if self.identity.target.get("teacher", {}).get("sha256") == sha256:
            return [self.teacher(named)]
        return [self.teacher(), named_teacher(named)]


def random_start(recipe: str, seed: int) -> Entrant:
    """An untrained student of a recipe.

    Raises:
        ConfigError: There is no such recipe.
    """
    return _random_start(load(recipe, RECIPES).model, seed, f"random start of {recipe}")


def _random_start(model: ModelSettings, seed: int, name: str) -> Entrant:
    def open_it(device: str) -> Subject:
        identity = f"random start {fingerprint(to_mapping(model))} {seed}"
        return student_subject(build(model, seed).to(device).eval(), name, identity)

    return Entrant(role="random start", name=name, open=open_it)


def named_teacher(text: str) -> Entrant:
    """A teacher at its projected tokens, or where there are none at its final ones.

    Raises:
        ConfigError: The name cannot be used.
    """
    parse_name(text)
    name = f"teacher {text}"
    return Entrant(
        role="teacher", name=name, open=lambda device: teacher_subject(load_teacher(text, device=device), name)
    )


def pixels(size_px: int) -> Entrant:
    """The pixels of crops of this side.

    Raises:
        ConfigError: No crop has this side.
    """
    subject = pixel_subject(size_px)
    return Entrant(role="pixels", name="pixels", open=lambda _: subject)
