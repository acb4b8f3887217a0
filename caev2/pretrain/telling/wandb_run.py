"""A run at Weights & Biases that goes on where the run of this package does.

Whether anything is sent, where to and as whom is for the package's own environment to say: `WANDB_MODE=offline` keeps
all of it in the folder of the run, `wandb sync` sends it later.
"""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from caev2.errors import ConfigError
from caev2.store.disk import write_whole, writing

FILE_NAME = "wandb.json"
"""In the folder of the run: project and id."""


class WandbRun:
    """Sends figures to a run at Weights & Biases.

    Steps are an axis of their own there: those that are trained again after an interruption are drawn over the first
    ones, where a step of Weights & Biases' own count would be refused.

    Args:
        run: Folder of the run.
        project: Name of the project.
        about: What is shown beside the run.

    Raises:
        ConfigError: Weights & Biases refuses: nobody is logged in, or it cannot be reached.
    """

    def __init__(self, run: Path, project: str, about: Mapping[str, Any]):
        import wandb  # pyright: ignore[reportMissingImports]: an extra, asked for by name

        with writing(run):
            identity = _identity(run, project)
        try:
            self._run = wandb.init(
                project=project,
                id=identity,
                name=run.resolve().name,
                dir=run,
                config=dict(about),
                resume="allow",
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as problem:
            raise ConfigError(
                f"--wandb {project}: Weights & Biases refuses: {problem}. Log in with `wandb login`, or set "
                "WANDB_MODE=offline and send the run later with `wandb sync`."
            ) from None
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, record: dict[str, Any]) -> None:
        """Send what is known of a step, finite or not."""
        self._run.log({name: value for name, value in record.items() if value is not None})

    def flush(self) -> None:
        """Nothing: the package sends by a process of its own."""

    def close(self) -> None:
        """Wait until all is sent."""
        self._run.finish()


def _identity(run: Path, project: str) -> str:
    """The id of the run in a project: the one it had before, or a new one, which is kept."""
    path = run / FILE_NAME
    kept = json.loads(path.read_bytes()) if path.exists() else {}
    if kept.get("project") != project:
        kept = {"project": project, "id": uuid.uuid4().hex[:8]}
        write_whole(path, json.dumps(kept).encode() + b"\n", scratch=run)
    return kept["id"]
