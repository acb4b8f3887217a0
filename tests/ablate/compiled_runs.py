"""A program: ten runs that differ in their masks, compiled one after another in one process.

Prints how many graphs each had compiled. On its own, because checks of shapes at run time cannot be compiled.
"""

import json
import sys
from pathlib import Path

import torch

from caev2.ablate.finding import Judging
from caev2.ablate.running import ablate
from caev2.pretrain.learning.step import Objective, StoredInputs
from tests.ablate.studying import Here, grid, plan


class Counting(Here):
    """Remembers how many graphs there were after each run."""

    def __init__(self):
        self.graphs, self.counts = 0, [0]

    def compile(self, graph, inputs):
        """Counts, and leaves the graph as it is."""
        self.graphs += 1
        return graph.forward

    def work_off(self, works, told):
        for work in works:
            super().work_off([work], told)
            self.counts.append(self.graphs)


def main(made: Path, out: Path) -> None:
    counting, compiled = Counting(), torch.nn.Module.compile
    Objective.compile = lambda self, **how: compiled(self, backend=counting.compile, **how)  # type: ignore[method-assign]
    StoredInputs.compile = lambda self: None  # type: ignore[method-assign]
    axis = [{"name": "masked", "field": "mask.count", "values": list(range(10, 20))}]
    many = plan(made, grid(axis=axis, set={"compile": True}))
    ablate(many, out, Judging.by(made / "images"), counting, images=made / "images")
    print(json.dumps([after - before for before, after in zip(counting.counts, counting.counts[1:], strict=False)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
