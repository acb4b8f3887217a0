"""Several ranks on this machine, each a process of the same command: what `torchrun --standalone` does, and more.

It passes signals on, so that a run saves and leaves as it does alone, and ends with the status of its ranks, where
torchrun ends with 1. Ranks end with it, however it ends.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from caev2.errors import RankLost
from caev2.pretrain.together.signals import SIGNALS, Heard

PATIENCE_S = 10.0
"""How long ranks may live on once one has failed: those on CPUs notice by themselves and say so, GPUs' do not."""
LEAVING_S = 120.0
"""The same once one has left in order: the others are at the same step, and the first saves."""
_TICK_S = 0.1
PARENT = "CAEV2_LAUNCHER"
"""Variable of the environment: the process that started this rank."""
_LEFT = {0, *(128 + number for number in SIGNALS)}


def launch(words: Sequence[str], count: int) -> int:
    """Run `caev2` with these words as so many ranks, and return their status: that of the first that did not end well.

    Raises:
        RankLost: One was ended from outside.
        KeyboardInterrupt: Ctrl-C was pressed again while the ranks were leaving.
    """
    ranks: list[subprocess.Popen] = []
    asked: list[int] = []
    heard = Heard()

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        if heard.is_forced(number):
            raise KeyboardInterrupt  # which ends the ranks
        asked.append(number)
        for rank in ranks:
            rank.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    # the ranks meet here, at a port that nobody else can take meanwhile
    meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    try:
        for index in range(count):
            command = [sys.executable, "-m", "caev2.cli", *words]
            ranks.append(subprocess.Popen(command, env=_environment(index, count, meeting.port), process_group=0))
        return _wait(ranks, asked)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment(index: int, count: int, port: int) -> dict[str, str]:
    told = {
        "RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True, PARENT: os.getpid(),
    }  # fmt: skip
    unless_said = {"OMP_NUM_THREADS": max(1, len(os.sched_getaffinity(0)) // count), "GLOO_SOCKET_IFNAME": "lo"}
    return {name: str(value) for name, value in unless_said.items()} | os.environ | {n: str(v) for n, v in told.items()}


def _wait(ranks: list[subprocess.Popen], asked: list[int]) -> int:
    """Until all have ended; once one has, the others have only so long.

    One that was asked to leave while it was still starting has ended by the very signal.
    """
    ended, deadline = {}, float("inf")
    while len(ended) < len(ranks) and time.monotonic() < deadline:
        time.sleep(_TICK_S)
        for index, rank in enumerate(ranks):
            if index not in ended and rank.poll() is not None:
                ended[index] = 128 - rank.returncode if -rank.returncode in asked else rank.returncode
                left = LEAVING_S if ended[index] in _LEFT else PATIENCE_S
                deadline = min(deadline, time.monotonic() + left)
    for index, status in ended.items():
        if status < 0:
            raise RankLost(
                f"Rank {index} of {len(ranks)} was ended by {signal.Signals(-status).name}, and the others with it. "
                "Most often memory was short. The same command goes on from the last checkpoint."
            )
    failed = next((status for status in ended.values() if status not in _LEFT), None)
    if failed is not None:
        return failed
    if len(ended) < len(ranks):
        missing = next(index for index in range(len(ranks)) if index not in ended)
        raise RankLost(f"Rank {missing} of {len(ranks)} did not leave when the others did, and was ended.")
    return max(ended.values())
