"""Work in worker processes, in order and ahead of its use.

The one place that starts worker processes. Whatever has to be read, decoded or cropped for a device is prepared by
`in_order`:

    for crops in in_order(crops_of, [range(0, 128), range(128, 256)], workers=2):
        subject.pool(crops.to(device))

where `crops_of(images)` may raise any `Caev2Error`: it arrives here as it is, at the place of the item it belongs to.
"""

import contextlib
import multiprocessing
import multiprocessing.util
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from caev2.errors import Caev2Error, WorkerDied

Key = TypeVar("Key")
Item = TypeVar("Item")


def in_order(
    make: Callable[[Key], Item],
    keys: Iterable[Key],
    *,
    workers: int,
    ahead: int = 4,
    pin_memory: bool = False,
) -> Iterator[Item]:
    """`make(key)` for each key, in the order of the keys.

    Without workers each item is made when it is asked for. With workers, keys are taken as items are: `keys` may be
    a generator that decides late. Workers leave Ctrl-C, SIGTERM and SIGUSR1 to this process, which ends them with
    itself.

    Args:
        make: A function of a module or a method of something that can be pickled.
        keys: What to make items of.
        workers: Processes; 0: none but this one.
        ahead: Items that each worker may be ahead.
        pin_memory: Copy tensors into page-locked memory, for a faster way to a GPU.

    Raises:
        Caev2Error: `make` raised it.
        WorkerDied: A worker was killed, as by a system that is out of memory.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more than cores: as was asked for
        loader = DataLoader(
            _Attempts(make),
            batch_size=None,
            sampler=keys,  # type: ignore[arg-type]
            num_workers=workers,
            prefetch_factor=ahead if workers else None,
            collate_fn=_as_is,
            pin_memory=pin_memory,
            worker_init_fn=_Beginning(os.getpid()),
            generator=torch.Generator(),  # else the global one would give a seed away
        )
        items = iter(loader)
    _soften_deaths()
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except KeyboardInterrupt:  # torch would wait five seconds for each worker that is busy
            _kill_workers()
            raise
        except RuntimeError as problem:
            if not str(problem).startswith(_DEATH):
                raise
            raise WorkerDied(
                f"One of {workers} data workers was ended from outside ({_last_words or problem}). Most often memory "
                f"was short: of the machine, or shared memory{_say_shared()}. Free some (containers: --shm-size=8g), "
                "or let extract and pretrain do with fewer (--set workers=1, or 0). Then run the same command again."
            ) from None
        if isinstance(item, Caev2Error):
            raise item
        yield item


SHARED = Path("/dev/shm")
"""Memory that processes share, a file system of its own on Linux; containers have 64 MB of it unless told."""


def _say_shared() -> str:
    return f" ({shutil.disk_usage(SHARED).total / 1e6:,.0f} MB in {SHARED})" if SHARED.is_dir() else ""


@dataclass(frozen=True, slots=True)
class _Attempts(Dataset, Generic[Key, Item]):
    make: Callable[[Key], Item]

    def __getitem__(self, key: Key) -> Item | Caev2Error:
        """The item, or why there is none: torch would bury a worker's error in its traceback."""
        try:
            return self.make(key)
        except Caev2Error as problem:
            return problem


@dataclass(frozen=True, slots=True)
class _Beginning:
    """What a worker does first."""

    parent: int
    """The process that it works for."""

    def __call__(self, worker: int) -> None:
        """Leave signals to the parent, and end when it does.

        When a signal is sent to the whole process group, the parent ends its step first, then the workers. When the
        parent is killed, torch's own watch would wait for what nobody reads any more to be read.
        """
        del worker
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        end_with(self.parent)


def end_with(parent: int) -> None:
    """Have this process end, within a second or so, when the one that started it has ended, however that came."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_WATCH_SECONDS = 1.0


def _kill_workers() -> None:
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


# Python ends daemons with a SIGTERM, which ours ignore, and then waits for them: for ever, where an iterator is still
# alive, as in the traceback of an error. This runs before it.
multiprocessing.util.Finalize(None, _kill_workers, exitpriority=10)


def _as_is(item: Any) -> Any:
    return item


# A dead worker is found when its item is waited for. torch also raises at once, from a signal handler and wherever
# the main thread happens to be: in the middle of writing a checkpoint. So that is held back, its words kept.
_DEATH = "DataLoader worker (pid"
_last_words = ""


@dataclass(frozen=True, slots=True)
class _Softened:
    handler: Callable[[int, Any], Any]

    def __call__(self, number: int, frame: Any) -> None:
        global _last_words
        try:
            self.handler(number, frame)
        except RuntimeError as problem:
            if not str(problem).startswith(_DEATH):
                raise
            _last_words = str(problem).split(". ")[0].rstrip(".")


def _soften_deaths() -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    in_main = threading.current_thread() is threading.main_thread()  # elsewhere torch sets no handler either
    if in_main and callable(handler) and not isinstance(handler, _Softened):
        signal.signal(signal.SIGCHLD, _Softened(handler))


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """A process that begins now ignores Ctrl-C and SIGTERM from its first moment: this one says when it ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
