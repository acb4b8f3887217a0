"""Turns: everybody in every round, so that whatever else the machine does meets all alike."""

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from caev2.pretrain.learning.heap import keep_freed_memory
from caev2.pretrain.learning.step import tensor_cores

from .contenders import CONTENDERS, LIVE, LIVE_BF16, STORE, Bench, Step
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
    with contextlib.closing(loop.load(warmup + steps + SPARE)) as loaded:
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


Ready = Callable[[], Callable[[], Turn]]
"""Makes what a contender needs, and gives what has it take a turn."""


class Contestant:
    """A contender in a process of its own, so that nobody's memory or caches are another's; waits for its turns.

    Args:
        name: Who.
        ready: Makes what it needs, at its first turn.
        device: Where it computes.
    """

    def __init__(self, name: str, ready: Ready, device: str):
        spawn = multiprocessing.get_context("spawn")
        self._ours, theirs = spawn.Pipe()
        self._name = name
        self._process = spawn.Process(target=_take_turns, args=(theirs, name, ready, device))
        self._process.start()
        theirs.close()

    def turn(self) -> Turn:
        """Have it take one; others wait."""
        self._ours.send(True)
        try:
            return self._ours.recv()
        except EOFError:
            raise SystemExit(f"{self._name} has ended before its time; what it said is above.") from None

    def close(self) -> None:
        """It has had its turns."""
        self._ours.close()
        self._process.join()


def _take_turns(asked: Connection, name: str, ready: Ready, device: str) -> None:
    prepare(name, device)
    with tensor_cores(device):
        take: Callable[[], Turn] | None = None
        with contextlib.suppress(EOFError):
            while asked.recv():
                take = take or ready()
                asked.send(take())
                if device != "cpu":
                    torch.cuda.empty_cache()  # one's kept memory must not be another's lack of it


def prepare(name: str, device: str) -> None:
    """What the command does before it trains, for those who are this package."""
    if device == "cpu" and name in (STORE, LIVE, LIVE_BF16):
        keep_freed_memory()


def interleave(
    ready: Mapping[str, Ready], rounds: int, device: str, *, one_at_a_time: bool = False
) -> dict[str, list[Turn]]:
    """Everybody's turns; each round begins with another one, and one before them all does not count.

    In that one compilers are at work, and memory is asked of the system for the first time.

    Args:
        ready: By name.
        rounds: How many count.
        device: Where they compute.
        one_at_a_time: Each has a new process in every round, which ends with its turn: where memory does not hold
            all of them together. Then there is no round that does not count, for nothing would be left of it.
    """
    names, found = list(ready), {name: [] for name in ready}
    if one_at_a_time:
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                with contextlib.closing(Contestant(name, ready[name], device)) as contestant:
                    found[name].append(contestant.turn())
        return found
    with contextlib.ExitStack() as ending:
        contestants = {
            name: ending.enter_context(contextlib.closing(Contestant(name, one, device))) for name, one in ready.items()
        }
        for number in range(-1, rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                turn = contestants[name].turn()
                if number >= 0:
                    found[name].append(turn)
    return found


def peak_memory_mb(setting: Setting, material: Material, name: str) -> float:
    """Most memory of a process that does nothing but one contender's steps: of the GPU, or all of it on a CPU."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as alone:
        return alone.submit(_peak_mb, setting, material, name).result()


def _peak_mb(setting: Setting, material: Material, name: str) -> float:
    prepare(name, setting.device)
    with tensor_cores(setting.device):
        step = CONTENDERS[name](Bench(setting, material))
        for _ in range(MEMORY_STEPS):
            step()
    if setting.on_gpu:
        return torch.cuda.max_memory_allocated() / 1e6
    # not getrusage: its figure begins with what the parent had when it started this process
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
