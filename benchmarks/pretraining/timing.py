"""Turns: everybody in every round, so that whatever else the machine does meets all alike."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from caev2.pretrain.step import tensor_cores

from .contenders import CONTENDERS, Bench, Step
from .loaders import Loop
from .setting import Material, Setting

SPARE = 2
"""Batches more than steps: whoever sends them ahead asks for more than it uses."""
MEMORY_STEPS = 2


@dataclass(frozen=True, slots=True)
class Turn:
    """What some steps took."""

    seconds: float
    """A step."""
    waited: float | None = None
    """Share of it spent waiting for data; none where it lies on the device already."""


def time_steps(step: Step, device: str, *, warmup: int, steps: int) -> Turn:
    """Steps on data that is there."""
    for _ in range(warmup):
        step()
    settle(device)
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    settle(device)
    return Turn((time.perf_counter() - begun) / steps)


def time_loop(loop: Loop, device: str, *, warmup: int, steps: int) -> Turn:
    """A loader and the steps on what it brings; it is started anew, and is at work when the time begins."""
    with closing(loop.load(warmup + steps + SPARE)) as loaded:
        awaited = Awaited(loaded)
        batches = loop.feed(awaited)
        for _ in range(warmup):
            loop.step(next(batches))
        settle(device)
        awaited.seconds, begun = 0.0, time.perf_counter()
        for _ in range(steps):
            loop.step(next(batches))
        settle(device)
        seconds = time.perf_counter() - begun
    return Turn(seconds / steps, awaited.seconds / seconds)


class Awaited(Iterator[Any]):
    """The same batches, and how long they were waited for."""

    def __init__(self, batches: Iterator[Any]):
        self.seconds, self._batches = 0.0, batches

    def __next__(self) -> Any:
        asked = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self.seconds += time.perf_counter() - asked


def settle(device: str) -> None:
    """Wait for what a GPU has still to do."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def interleave(turns: Mapping[str, Callable[[], Turn]], rounds: int, device: str) -> dict[str, list[Turn]]:
    """Everybody's turns; each round begins with another one, and one before them all does not count.

    In that one compilers are at work, and memory is asked of the system for the first time.
    """
    names, found = list(turns), {name: [] for name in turns}
    with tensor_cores(device):
        for number in range(-1, rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                turn = turns[name]()
                if number >= 0:
                    found[name].append(turn)
                if device != "cpu":
                    torch.cuda.empty_cache()  # one's kept memory must not be another's lack of it
    return found


def peak_memory_mb(setting: Setting, material: Material, name: str) -> float:
    """Most memory of a process that does nothing but one contender's steps: of the GPU, or all of it on a CPU."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as alone:
        return alone.submit(_peak_mb, setting, material, name).result()


def _peak_mb(setting: Setting, material: Material, name: str) -> float:
    with tensor_cores(setting.device):
        step = CONTENDERS[name](Bench(setting, material))
        for _ in range(MEMORY_STEPS):
            step()
    if setting.on_gpu:
        return torch.cuda.max_memory_allocated() / 1e6
    # not getrusage: its figure begins with what the parent had when it started this process
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
