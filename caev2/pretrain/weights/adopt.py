"""A run made from somebody else's checkpoint, so that it can be probed, exported, and started from."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caev2.errors import CheckpointError, OutputError
from caev2.pretrain.identity import FILE_NAME, RunIdentity, claim_run
from caev2.pretrain.student.model import CAEv2
from caev2.pretrain.student.parameters import adamw
from caev2.pretrain.weights.checkpoint import save_checkpoint
from caev2.pretrain.weights.foreign import EXPORTED, Layout
from caev2.pretrain.weights.official import import_official
from caev2.pretrain.weights.tensor_file import digest_tensors
from caev2.recipe import to_mapping
from caev2.store.disk import Scratch, replace_file, write_whole, writing

REPORT = "import.json"
"""In a run's folder: which file its weights are from, and what became of every key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptResult:
    """What became of a foreign checkpoint."""

    run: Path | None
    """The run that was made; none: the file was only looked at."""
    layout: Layout
    """How the file names its tensors."""
    sha256: str
    """Of the file."""
    used: dict[str, str]
    """Keys of the file that are now in the run, and the tensors that they fill."""
    ignored: dict[str, str]
    """Keys that are not, and why."""
    missing: tuple[str, ...]
    """Tensors that the file does not hold: they start fresh."""
    beside: tuple[str, ...]
    """What lies beside the weights in the file; nothing is taken of it."""


def adopt_checkpoint(
    file: Path,
    run: Path | None,
    *,
    heads: int | None = None,
    regressor_heads: int | None = None,
    drop_relative_positions: bool = False,
) -> AdoptResult:
    """Make a run at step 0 with the weights of an official CAE v2 checkpoint, or of an export.

    Args:
        file: The checkpoint.
        run: The run to make; none: find out what would become of every key, and write nothing.
        heads: Of the encoder, where neither the file nor its width tells them.
        regressor_heads: Of the regressor.
        drop_relative_positions: Leave a fine-tuned model's tables of relative positions out; features change.

    Raises:
        CheckpointError: The file does not fit.
        UnsafeFile: The file would run code.
        OutputError: Something lies at `run` already, or it cannot be written.
    """
    if not file.exists():
        raise CheckpointError(f"There is no file at {file}.")
    if run is not None:
        _refuse_taken(run)
    model, report = import_official(
        file, heads=heads, regressor_heads=regressor_heads, drop_relative_positions=drop_relative_positions
    )
    result = AdoptResult(run=run, sha256=sha256_of_weights(file), **dataclasses.asdict(report))
    if run is not None:
        identity = RunIdentity(
            recipe={"model": to_mapping(model.settings)},
            store_fingerprint="",
            store_digest="",
            target={},
            init_from=digest_tensors(model.state_dict(), {}),
        )
        with writing(run):
            _write_whole_run(run, model, identity, result)
    return result


def sha256_of_weights(file: Path) -> str:
    """Digest of a checkpoint's file, or of the weights in an exported folder."""
    with (file / EXPORTED if file.is_dir() else file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_report(run: Path) -> dict[str, Any]:
    """What an imported run keeps of its import; empty for runs that were trained, or imported before it was kept."""
    try:
        content = json.loads((run / REPORT).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _refuse_taken(run: Path) -> None:
    if (run / FILE_NAME).exists():
        raise OutputError(f"{run} is a run already. Give another path.")
    if run.exists() and not (run.is_dir() and not any(run.iterdir())):
        raise OutputError(f"{run} is there already and no empty folder. Give another path.")


def _write_whole_run(run: Path, model: CAEv2, identity: RunIdentity, result: AdoptResult) -> None:
    """Make the run elsewhere on the same disk and move it to its place: a crash leaves all of it or none."""
    scratch = Scratch(run.parent / f".{run.name}.importing")
    try:
        made = scratch.folder / "run"
        save_checkpoint(
            made / "checkpoints", model, adamw(model), step=0, fingerprint=identity.fingerprint(), keep_last=1
        )
        claim_run(made, identity)
        kept = {name: value for name, value in dataclasses.asdict(result).items() if name != "run"}
        write_whole(made / REPORT, json.dumps(kept, indent=1).encode() + b"\n", scratch=scratch.folder)
        replace_file(made, run)
    finally:
        scratch.close()
