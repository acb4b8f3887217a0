"""What a fine-tuning is: the file in its folder that says so, and what it must not be mixed with.

Sizes of the student stand in the file too, beside what makes up its fingerprint: whoever reads the weights later cannot
tell heads from shapes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caev2.errors import CheckpointError, ConfigError, OutputError
from caev2.pretrain.identity import FILE_NAME as RUN_FILE
from caev2.pretrain.identity import model_settings, refuse_difference
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.weights.checkpoint import latest_checkpoint
from caev2.recipe import fingerprint, to_mapping
from caev2.store.disk import write_whole

FILE_NAME = "finetune.json"
_BESIDE = ("fingerprint", "model")
"""What the file says that is no part of the identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneIdentity:
    """Everything that decides the weights it ends with, and what they are judged on."""

    start: dict[str, Any]
    """Role of whose weights it starts from, and the digest of all weights, the fresh head's included."""
    recipe: dict[str, Any]
    """The result half of the recipe, with the precision that it ended up with."""
    images: dict[str, Any]
    """Digests of keys, labels and classes of both parts, and the EXIF rule."""

    def mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"start": self.start, "recipe": self.recipe, "images": self.images}

    def fingerprint(self) -> str:
        """One word that is equal for equal work."""
        return fingerprint(self.mapping())


def refuse_other(out: Path, identity: TuneIdentity, *, resume: bool) -> None:
    """Check that a folder holds nothing, or this very work where it may go on.

    Raises:
        OutputError: A pre-training run lies there.
        CheckpointError: Other work lies there, or this one and it may not go on, or the file is damaged.
    """
    if (out / RUN_FILE).exists():
        raise OutputError(f"{out} is a run of pre-training, whose checkpoints would be mixed up. Give another --out.")
    path = out / FILE_NAME
    if not path.exists():
        return
    if not resume:
        checkpoint = latest_checkpoint(out / "checkpoints")
        found = "there already" if checkpoint is None else f"there already, at step {checkpoint.step}"
        raise CheckpointError(f"{out} is {found}. Go on with --resume auto, or give another --out.")
    refuse_difference(out, _identity(_read(path)), identity.mapping())


def claim(out: Path, identity: TuneIdentity, sizes: ModelSettings | None = None) -> None:
    """Say in the folder whose it is, and how large its student is; a teacher has no such sizes."""
    if not (out / FILE_NAME).exists():
        content = {**identity.mapping(), "fingerprint": identity.fingerprint()}
        if sizes is not None:
            content["model"] = to_mapping(sizes)
        write_whole(out / FILE_NAME, json.dumps(content, indent=1).encode() + b"\n", scratch=out)


def read_claim(out: Path) -> tuple[dict[str, Any], ModelSettings | None]:
    """What a folder says of its fine-tuning: the content of its file, and the sizes of the student, if it has them.

    Raises:
        CheckpointError: The file is damaged.
    """
    content = _read(out / FILE_NAME)
    try:
        return content, model_settings(content["model"]) if "model" in content else None
    except ConfigError as problem:
        raise CheckpointError(
            f"{out / FILE_NAME} is damaged or was edited: its `model` makes no sense. {problem}"
        ) from None


def _identity(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in _BESIDE}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        if content["fingerprint"] != fingerprint(_identity(content)):
            raise ValueError("fingerprint")
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be read: {problem.strerror}. Bring it back from a copy.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{path} is damaged or was edited: its fingerprint does not hold. Bring it back from a copy, or give "
            "another --out."
        ) from None
    return content
