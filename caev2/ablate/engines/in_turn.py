"""The engine that does one run after another in this process."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from caev2.ablate.engines.engine import WAIT_S, Relay, Told
from caev2.ablate.one_run import Work, perform
from caev2.errors import Caev2Error


@dataclass(frozen=True, slots=True)
class InTurn:
    """Runs one after another, here; see `engine.Engine`. What kills a run kills the command."""

    device: str = "cpu"

    def work_off(self, works: Sequence[Work], told: Told) -> None:
        """In the order given; a run that another command is at comes later."""
        left, busy = deque(works), 0
        while left:
            work = left.popleft()
            try:
                is_done = perform(work, self.device, Relay(work, told))
            except Caev2Error as problem:
                told.failed(work, str(problem))
                is_done, busy = None, 0
            if is_done is False:
                left.append(work)
                busy += 1
                if busy >= len(left):
                    time.sleep(WAIT_S)
            elif is_done:
                busy = 0
                told.finished(work)
