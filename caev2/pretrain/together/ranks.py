"""Processes that train one run together, each on its share of every batch.

`torchrun`, or `caev2 pretrain --gpus`, starts them and says in the environment which is which. Gradients are averaged
by torch's `DistributedDataParallel`; what is decided here is who writes, and that all decide alike.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed

from caev2.errors import Caev2Error, ConfigError, FirstRankRefused, RankLost
from caev2.pretrain.together.signals import Interrupted

T = TypeVar("T")

PATIENCE = datetime.timedelta(minutes=60)
"""How long a rank waits for the others: as long as the first may write a checkpoint, or judge the student. One that
dies is noticed at once, by gloo and by whoever started it."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of the processes this one is."""

    index: int = 0
    """0 to `count` - 1, over all machines."""
    count: int = 1
    on_machine: int = 0
    """Which of the processes of its machine: the number of its GPU."""
    per_machine: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one writes checkpoints and logs."""
        return self.index == 0


ALONE = Ranks()


def ranks_of_environment() -> Ranks:
    """What `torchrun` says; alone where it says nothing.

    Raises:
        ConfigError: It says what cannot be.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return ALONE
    try:
        found = Ranks(*(int(os.environ.get(name, other)) for name, other in _VARIABLES.items()))
    except ValueError:
        found = Ranks(-1)
    if not 0 <= found.index < found.count:
        said = ", ".join(f"{name}={os.environ.get(name)}" for name in _VARIABLES)
        raise ConfigError(f"The environment says {said}, which are no ranks. Start with torchrun, or unset them.")
    return found


_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


def device_of(ranks: Ranks, device: str) -> str:
    """The device of a rank: with several on a machine, each has a GPU of its own.

    Raises:
        ConfigError: All of them were given the same.
    """
    if ranks.count == 1 or not device.startswith("cuda"):
        return device
    if device != "cuda":
        raise ConfigError(f"{ranks.count} ranks were given {device}, all the same. Leave --device away, or say cuda.")
    return f"cuda:{ranks.on_machine}"


def use_gpu(ranks: Ranks, device: str) -> None:
    """Have this process, its threads included, touch no other GPU than the given one.

    Raises:
        ConfigError: There is none of this number.
    """
    if not device.startswith("cuda"):
        return
    if ranks.on_machine >= torch.cuda.device_count():
        raise ConfigError(
            f"{ranks.per_machine} ranks of a machine want a GPU each, and it has {torch.cuda.device_count()}. Start "
            "fewer."
        )
    torch.cuda.set_device(device)


@contextlib.contextmanager
def joined(ranks: Ranks, device: str, patience: datetime.timedelta = PATIENCE) -> Iterator["Company"]:
    """The ranks together, until this one leaves.

    Args:
        ranks: Who is who.
        device: Where this one computes.
        patience: How long one waits for another.

    Raises:
        ConfigError: The others cannot be met.
        RankLost: One of the others died, or left.
    """
    if ranks.count == 1:
        yield Company(ranks)
        return
    on_gpu = device.startswith("cuda")
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=patience)
    except (ValueError, RuntimeError) as problem:  # DistNetworkError, DistStoreError are RuntimeErrors
        raise ConfigError(
            f"Rank {ranks.index} of {ranks.count} does not meet the others: {str(problem).splitlines()[0]}. Start all "
            "of them with torchrun, which sets MASTER_ADDR and MASTER_PORT, or with --gpus on one machine."
        ) from None
    together = not on_gpu  # NCCL's way out waits for ranks that may wait for this one: in trouble, just end
    try:
        yield Company(ranks)
        together = True
    except Interrupted:
        together = True
        raise
    except RuntimeError as problem:
        if not _is_loss(problem):
            raise
        raise RankLost(
            f"Rank {ranks.index} of {ranks.count} lost another one: {str(problem).splitlines()[0]}. Read what that one "
            "said; the same command goes on from the last checkpoint."
        ) from None
    finally:
        if together:
            with contextlib.suppress(RuntimeError):  # of a group that is broken already
                distributed.destroy_process_group()


def _is_loss(problem: RuntimeError) -> bool:
    said = str(problem)
    kinds = (distributed.DistBackendError, distributed.DistNetworkError, distributed.DistStoreError)
    return isinstance(problem, kinds) or "gloo" in said or "Connection closed by peer" in said


@dataclass(frozen=True, slots=True)
class Company:
    """What ranks do together; alone, all of it is what one does anyway."""

    ranks: Ranks

    def first(self, work: Callable[[], T]) -> T:
        """Let the first rank do something, and have all know what came of it.

        Args:
            work: What it does; the result is pickled on its way to the others.

        Raises:
            FirstRankRefused: It raised an error, which is raised there as it is.
        """
        if self.ranks.count == 1:
            return work()
        said: list[Any] = [None, None]
        if self.ranks.is_first:
            try:
                said = [work(), None]
            except Caev2Error as problem:
                distributed.broadcast_object_list([None, str(problem)], src=0, device=torch.device("cpu"))
                raise
        distributed.broadcast_object_list(said, src=0, device=torch.device("cpu"))
        if said[1] is not None:
            raise FirstRankRefused(said[1])
        return said[0]

    def together(self, work: Callable[[], T]) -> T:
        """Have every rank do something for itself, and go on only if none was refused.

        Args:
            work: What each does; nothing in it may wait for another rank.

        Raises:
            Caev2Error: Raised at the first rank: what the first of those that were refused was told.
            FirstRankRefused: The same, at all others.
        """
        if self.ranks.count == 1:
            return work()
        found, problem = None, None
        try:
            found = work()
        except Caev2Error as refused:
            problem = refused
        said: list[Any] = [None] * self.ranks.count
        distributed.all_gather_object(said, problem)
        first = next((each for each in said if each is not None), None)
        if first is None:
            return cast(T, found)
        raise first if self.ranks.is_first else FirstRankRefused(str(first))

    def agree(self, value: object, what: str) -> None:
        """Refuse to go on where ranks do not see the same, as while somebody writes to what they read.

        Raises:
            ConfigError: Raised at the first rank: another one sees something else.
            FirstRankRefused: The same, at all others.
        """
        if self.ranks.count == 1:
            return
        seen: list[Any] = [None] * self.ranks.count
        distributed.all_gather_object(seen, str(value))
        odd = next((rank for rank, each in enumerate(seen) if each != seen[0]), None)
        if odd is None:
            return
        said = (
            f"The first of {self.ranks.count} processes sees {what} {seen[0]}, number {odd} sees {seen[odd]}. Wait "
            "until nobody writes there, give a folder that all machines share, and run the same command again."
        )
        raise ConfigError(said) if self.ranks.is_first else FirstRankRefused(said)

    def collect(self, part: T) -> list[T]:
        """What each rank has, in their order, at the first rank; nothing at the others."""
        if self.ranks.count == 1:
            return [part]
        parts: list[Any] | None = [None] * self.ranks.count if self.ranks.is_first else None
        distributed.gather_object(part, parts)
        return parts or []

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.ranks.count > 1:
            distributed.all_reduce(torch.zeros(1))

    def agreement(self) -> "Agreement":
        """A new series of questions to all."""
        return Agreement(self.ranks)

    def average(self, figures: Tensor) -> Tensor:
        """The mean over the ranks, on their device; nobody waits for it."""
        if self.ranks.count == 1:
            return figures
        distributed.all_reduce(figures)
        return figures / self.ranks.count


class Agreement:
    """What the largest number is that any rank says, known to all at the same step: one late, so that nobody waits."""

    def __init__(self, ranks: Ranks):
        self._ranks = ranks
        self._said: tuple[Tensor, distributed.Work] | None = None

    def reach(self, number: int) -> int:
        """Say a number, and hear the largest one of the step before; alone, of this one."""
        if self._ranks.count == 1:
            return number
        largest = self.end()
        said = torch.tensor(number)
        work = distributed.all_reduce(said, distributed.ReduceOp.MAX, async_op=True)
        assert work is not None  # as it is asked for
        self._said = said, work
        return largest

    def end(self) -> int:
        """Hear what was said last."""
        if self._said is None:
            return 0
        said, work = self._said
        self._said = None
        work.wait()
        return int(said)
