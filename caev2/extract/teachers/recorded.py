"""The teacher that a store or a run records, found again by the digest of its weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from caev2.errors import Caev2Error, TeacherError
from caev2.extract.teachers.catalog import load_teacher
from caev2.extract.teachers.known import TEACHERS
from caev2.extract.teachers.names import split_name
from caev2.extract.teachers.teacher import Precision, Teacher


def load_recorded_teacher(
    recorded: Mapping[str, Any], device: str, names: Sequence[str] = (), precision: Precision | None = None
) -> Teacher:
    """The teacher that made a store's targets, known by the digest of its weights.

    A store records which weights they were and not where they lie, so built-in teachers of the recorded architecture
    are tried after the names that are given.

    Args:
        recorded: Its name and sha256, as store and run keep them; empty where nothing is known.
        device: Where it computes.
        names: Under which to look first.
        precision: In which it computes; none: the device's default.

    Raises:
        TeacherError: None of these names leads to the very weights.
    """
    if not recorded:
        raise TeacherError("the run was made from a foreign checkpoint and records no teacher")
    wanted = recorded["sha256"]
    known = [teacher.name for teacher in TEACHERS if split_name(teacher.name).canonical == recorded["name"]]
    reasons = []
    for name in (*names, *known):
        try:
            teacher = load_teacher(name, device=device, precision=precision, image_px=recorded["image_px"])
        except Caev2Error as problem:
            reasons.append(str(problem))
            continue
        if teacher.description.sha256 == wanted:
            return teacher
        reasons.append(f"{name} has other weights: sha256 {teacher.description.sha256[:12]}, not {wanted[:12]}")
    raise TeacherError("; ".join(reasons) or f"{recorded['name']} with sha256 {wanted[:12]} is not built in")
