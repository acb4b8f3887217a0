"""A run made from somebody else's checkpoint, so that it can be probed, and started from."""

from dataclasses import dataclass
from pathlib import Path

from caev2.errors import CheckpointError, OutputError
from caev2.pretrain.checkpoint import save_checkpoint
from caev2.pretrain.identity import FILE_NAME, RunIdentity, claim_run
from caev2.pretrain.model import CAEv2
from caev2.pretrain.official import import_official
from caev2.pretrain.parameters import adamw
from caev2.recipe import to_mapping
from caev2.store.disk import Scratch, replace_file, writing


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptResult:
    """What became of a foreign checkpoint."""

    run: Path
    used: int
    """Tensors of the file that are now in the run."""
    ignored: dict[str, str]
    """Tensors that are not, and why."""
    missing: tuple[str, ...]
    """Tensors that the file does not hold: they start fresh."""


def adopt_checkpoint(file: Path, run: Path) -> AdoptResult:
    """Make a run at step 0 with the weights of an official CAE v2 checkpoint.

    Raises:
        CheckpointError: The file does not fit.
        UnsafeFile: The file would run code.
        OutputError: Something lies at `run` already, or it cannot be written.
    """
    if not file.exists():
        raise CheckpointError(f"There is no file at {file}.")
    _refuse_taken(run)
    model, report = import_official(file)
    identity = RunIdentity(
        recipe={"model": to_mapping(model.settings)}, store_fingerprint="", store_digest="", target={}
    )
    with writing(run):
        _write_whole_run(run, model, identity)
    return AdoptResult(run=run, used=len(report.used), ignored=report.ignored, missing=report.missing)


def _refuse_taken(run: Path) -> None:
    if (run / FILE_NAME).exists():
        raise OutputError(f"{run} is a run already. Give another path.")
    if run.exists() and not (run.is_dir() and not any(run.iterdir())):
        raise OutputError(f"{run} is there already and no empty folder. Give another path.")


def _write_whole_run(run: Path, model: CAEv2, identity: RunIdentity) -> None:
    """Make the run elsewhere on the same disk and move it to its place: a crash leaves all of it or none."""
    scratch = Scratch(run.parent / f".{run.name}.importing")
    try:
        made = scratch.folder / "run"
        save_checkpoint(
            made / "checkpoints", model, adamw(model), step=0, fingerprint=identity.fingerprint(), keep_last=1
        )
        claim_run(made, identity)
        replace_file(made, run)
    finally:
        scratch.close()
