"""Where the figures of a run go: its log, an event file for TensorBoard, and Weights & Biases if asked for."""

import contextlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from caev2.errors import ConfigError
from caev2.pretrain.telling.log import Log


@runtime_checkable
class Logger(Protocol):
    """Somebody who keeps the figures of steps."""

    def write(self, record: dict[str, Any]) -> None:
        """Take the figures of a step; `record["step"]` is its number."""

    def flush(self) -> None:
        """Wait until what was written would outlive this process."""

    def close(self) -> None:
        """Nothing more will be written."""


class Loggers:
    """Several of them as one.

    Args:
        loggers: Who is told, in this order.
    """

    def __init__(self, loggers: Sequence[Logger]):
        self._loggers = tuple(loggers)

    def write(self, record: dict[str, Any]) -> None:
        """Tell all of them."""
        for logger in self._loggers:
            logger.write(record)

    def flush(self) -> None:
        """Wait for all of them."""
        for logger in self._loggers:
            logger.flush()

    def close(self) -> None:
        """Close all of them, whatever one of them says to it."""
        with contextlib.ExitStack() as closing:
            for logger in reversed(self._loggers):
                closing.callback(logger.close)


def open_loggers(
    run: Path, from_step: int, *, wandb: str | None = None, about: Mapping[str, Any] | None = None
) -> Logger:
    """The log of a run, together with TensorBoard's event file where that is installed, and a run at Weights & Biases.

    Args:
        run: Folder of the run.
        from_step: Step that training goes on with: what was written of it and later ones belongs to work that was lost.
        wandb: A project at Weights & Biases; none: nothing is sent there.
        about: What Weights & Biases shows beside the run, as its recipe.

    Raises:
        ConfigError: Weights & Biases cannot be used.
        OutputError: Something cannot be written.
    """
    refuse_missing_wandb(wandb)
    with contextlib.ExitStack() as opened:
        loggers: list[Logger] = [opened.enter_context(contextlib.closing(Log(run, from_step)))]
        if has_tensorboard():
            from caev2.pretrain.telling.event_file import EventFile

            loggers.append(opened.enter_context(contextlib.closing(EventFile(run, from_step))))
        if wandb is not None:
            from caev2.pretrain.telling.wandb_run import WandbRun

            loggers.append(WandbRun(run, wandb, about or {}))
        opened.pop_all()
    return Loggers(loggers)


def has_tensorboard() -> bool:
    """Whether event files can be written."""
    return importlib.util.find_spec("tensorboard") is not None


def refuse_missing_wandb(project: str | None) -> None:
    """Refuse to send figures where there is no package to do so.

    Raises:
        ConfigError: A project is given, and the package is not installed.
    """
    if project is not None and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f"--wandb {project} needs the package wandb, which is not installed. Install it with `pip install "
            "'caev2[wandb]'`, or leave --wandb away: the log of the run holds the same figures."
        )
