"""The command that makes the store of a run again. Pure."""

from typing import Any

from caev2.errors import ConfigError
from caev2.extract.recipes import RECIPES
from caev2.pretrain.identity import RunIdentity
from caev2.report.reproducing.commands import Command, say_digest, sets, unknown
from caev2.report.reproducing.recipes import nearest_recipe
from caev2.report.reproducing.teachers import NamedTeacher, name_teacher
from caev2.store.manifest import Manifest

_WORDS = ("extract", "IMAGES", "STORE")


def extract_command(identity: RunIdentity, manifest: Manifest | None) -> Command:
    """What makes the store of a run.

    Args:
        identity: Of the run.
        manifest: Of the store; none: what the run records is all that is known.
    """
    teacher = name_teacher(identity.target["teacher"])
    recorded = _of_run(identity, teacher) | ({} if manifest is None else _of_store(identity, manifest))
    notes = [*([] if teacher.note is None else [teacher.note]), *_say_store(identity, manifest)]
    try:
        name, settings = nearest_recipe(recorded, RECIPES)
    except ConfigError as problem:
        return unknown("the store", problem, *_WORDS)
    return Command(makes="the store", words=(*_WORDS, "--recipe", name, *sets(settings)), notes=tuple(notes))


def teacher_settings(recorded: dict[str, Any], teacher: NamedTeacher) -> dict[str, Any]:
    """What a recipe says of a teacher: its size where that is not the one that it takes by itself."""
    size = recorded.get("image_px")
    resized = {} if size in (None, teacher.crop_px) else {"teacher_px": size}
    return {"teacher": teacher.name, "precision": recorded.get("precision"), **resized}


def _of_run(identity: RunIdentity, teacher: NamedTeacher) -> dict[str, Any]:
    target = identity.target
    return {
        **teacher_settings(target["teacher"], teacher),
        "views": identity.views,
        "taps": [target["tap"]],
        "codec": target.get("codec", "float16"),
        "from_crops": target.get("from_crops", False),
        "target_prefix": identity.recipe["target"].removesuffix(target["tap"].replace(":", "-")),
    }


def _of_store(identity: RunIdentity, manifest: Manifest) -> dict[str, Any]:
    spec = manifest.spec
    same = [one.tap for one in spec.targets.values() if one.teacher == identity.target["teacher"]]
    return {
        **({"taps": same} if same else {}), "view_count": manifest.views, "first_view": manifest.first_view,
        "crops": spec.crops, "layout": manifest.layout, "block_images": spec.block_images,
        "teacher_batch": spec.teacher_batch,
    }  # fmt: skip


def _say_store(identity: RunIdentity, manifest: Manifest | None) -> list[str]:
    """Which images they were, for --limit, --sample and --classes are recorded nowhere; and what else is open."""
    if manifest is None:
        return [
            "The run does not record how many views its store has, nor how it keeps them: give the store with --store."
        ]
    classes = f" of {len(manifest.classes):,} classes" if manifest.classes else ""
    notes = [
        f"IMAGES were {manifest.images:,} images{classes} with the digest {say_digest(manifest.source_digest)}. If "
        "yours are more, a part of them was taken: add --limit, --sample or --classes, which no store records."
    ]
    if any(one.teacher != identity.target["teacher"] for one in manifest.spec.targets.values()):
        notes.append("Other targets of this store came from other teachers: `caev2 store graft` puts them together.")
    return notes
