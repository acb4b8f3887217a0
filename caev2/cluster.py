"""A Ray cluster, as extraction and ablations come to it: the way there, and what a task has to find on its machine.

Ray is imported where it is used: it need not be installed.
"""

import contextlib
import importlib.metadata
import logging
import os
import platform
import re
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from caev2.errors import ConfigError, MachineDiffers

_KNOCK_S = 5.0
_DECIDE_RESULTS = ("caev2", "torch", "timm", "open_clip_torch", "pillow", "numpy")
"""Pixels, latents, weights and what probes find depend on them."""


def connect(address: str, *, or_start: bool = False) -> ModuleType:
    """Ray, connected to a cluster.

    Args:
        address: As `ray.init` takes it; `auto` is the one that is running.
        or_start: With `auto`, start one on this machine where none is running.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise ConfigError("--engine ray needs Ray: pip install 'caev2[ray]', on every machine.") from None
    if ray.is_initialized():
        return ray
    quietly: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with _sigterm_as_it_was():
            _knock(address)
            ray.init(address=address, **quietly)
    except (OSError, ValueError) as problem:  # a ConnectionError is an OSError
        if not or_start or address != "auto":
            raise ConfigError(
                f"There is no Ray cluster at {address!r} ({str(problem).splitlines()[0]}). Start one with "
                "`ray start --head`, or say where it is with --ray-address."
            ) from None
        with _sigterm_as_it_was():
            ray.init(address="local", include_dashboard=False, **quietly)
    except RuntimeError as problem:  # among them: the cluster runs another version of Ray or Python
        raise ConfigError(
            f"The Ray cluster at {address!r} cannot be joined: {' '.join(str(problem).split())} Install the same "
            "versions of Ray and Python everywhere."
        ) from None
    return ray


def _knock(address: str) -> None:
    """Find out whether anybody answers at HOST:PORT: Ray itself tries for minutes, and then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


@contextlib.contextmanager
def _sigterm_as_it_was() -> Iterator[None]:
    """Ray takes SIGTERM for itself and would end its processes at once, with all that they have not saved."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        is_ours = before is not None and before != signal.SIG_DFL
        if is_ours and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def device_of_tasks(name: str | None, address: str, *, or_start: bool = False) -> Literal["cpu", "cuda"]:
    """What tasks compute on: as asked, or else on GPUs if any machine of the cluster has one.

    Raises:
        ConfigError: A certain GPU was asked for, or something that is no device.
    """
    if name is None:
        return "cuda" if connect(address, or_start=or_start).cluster_resources().get("GPU", 0) else "cpu"
    if re.fullmatch(r"cuda:\d+", name):
        raise ConfigError(
            f"--device {name} names a GPU of one machine; with --engine ray, Ray picks one for each task: give "
            "--device cuda, or leave it away."
        )
    if name == "cpu" or name == "cuda":
        return name
    raise ConfigError(f"--device cannot be {name!r} with --engine ray. Give cpu or cuda.")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a command runs; its tasks have to run in the same."""

    folder: str
    """The working directory, which paths may be relative to."""
    versions: dict[str, str]
    """Of everything that decides results."""

    def settle(self) -> None:
        """Make a task's process like the command's.

        Raises:
            MachineDiffers: Another version of something is installed, or the folder is missing: else results would
                depend on who did what.
        """
        for name, there in surroundings().versions.items():
            if there != self.versions[name]:
                raise MachineDiffers(
                    f"The cluster's machine {platform.node()} has {name} {there}, the command's has "
                    f"{self.versions[name]}. Install the same versions everywhere. What is done is kept."
                )
        try:
            os.chdir(self.folder)
        except OSError as problem:
            raise MachineDiffers(
                f"The cluster's machine {platform.node()} has no folder {self.folder} ({problem.strerror}). Run the "
                "command in one that all machines share. What is done is kept."
            ) from None


def surroundings() -> Surroundings:
    """Those of this process."""
    return Surroundings(str(Path.cwd()), {name: importlib.metadata.version(name) for name in _DECIDE_RESULTS})


def losses(ray: ModuleType) -> tuple[type[Exception], ...]:
    """What Ray raises when a task's process or machine is gone."""
    known = ray.exceptions
    return (
        known.WorkerCrashedError,
        known.NodeDiedError,
        known.LocalRayletDiedError,
        known.OutOfMemoryError,
        known.ObjectLostError,
    )
