"""The weights that a run starts from: fresh ones, or those of another run, an official file or an export."""

from pathlib import Path

from caev2.errors import CheckpointError
from caev2.pretrain.identity import read_identity
from caev2.pretrain.student.model import CAEv2, build
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.weights.checkpoint import latest_checkpoint, load_weights
from caev2.pretrain.weights.foreign import EXPORTED, read_weights
from caev2.pretrain.weights.official import about_file, place_weights, settings_of
from caev2.pretrain.weights.tensor_file import digest_tensors


def starting_student(settings: ModelSettings, seed: int, source: Path | None) -> tuple[CAEv2, str | None]:
    """A student with the weights it starts from, and their digest, which is none if all of them are fresh.

    Args:
        settings: Sizes of the student.
        seed: Of fresh weights.
        source: Folder of a run, whose latest checkpoint is taken; or an official file, or an export, whose missing
            parts start fresh; none: all weights are fresh.

    Raises:
        CheckpointError: There is nothing at `source`, it is damaged, or of other sizes.
        UnsafeFile: The file would run code.
    """
    model = build(settings, seed)
    if source is None:
        return model, None
    if source.is_dir() and not (source / EXPORTED).exists():
        _take_run(source, model)
    else:
        _take_official(source, model)
    return model, digest_tensors(model.state_dict(), {})


def _take_run(run: Path, model: CAEv2) -> None:
    identity = read_identity(run)
    checkpoint = latest_checkpoint(run / "checkpoints")
    if checkpoint is None:
        raise CheckpointError(f"{run} has no checkpoint yet, so there are no weights to start from. Give another run.")
    _refuse_heads(run, "heads", identity.model, model.settings)
    _refuse_heads(run, "regressor_heads", identity.model, model.settings)
    load_weights(checkpoint.path, model, fingerprint=identity.fingerprint())


def _take_official(path: Path, model: CAEv2) -> None:
    with about_file(path):
        weights = read_weights(path)
        theirs = settings_of(weights)
        _refuse_heads(path, "heads", theirs, model.settings)
        if "mask_token" in weights.state:
            _refuse_heads(path, "regressor_heads", theirs, model.settings)
        tensors, _ = place_weights(weights, model.settings)
    model.load_state_dict(model.state_dict() | tensors)


def _refuse_heads(source: Path, name: str, theirs: ModelSettings, ours: ModelSettings) -> None:
    """Heads leave no trace in shapes: with another number of them, the same weights compute something else."""
    there, here = getattr(theirs, name), getattr(ours, name)
    if there != here:
        raise CheckpointError(
            f"{source} is of a student with model.{name} = {there}, the recipe asks for {here}. "
            f"Give --set model.{name}={there}."
        )
