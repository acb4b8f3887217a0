"""Batches prepared ahead, by as many worker processes as are needed."""

from collections.abc import Iterator

from caev2.pretrain.batches import Batch, StepBatches
from caev2.workers import in_order


def load_adaptively(
    batches: StepBatches, steps: range, workers: int | None, *, device: str, ranks_of_machine: int = 1
) -> Iterator[Batch]:
    """The batches of some steps in order, prepared ahead by worker processes."""
    del ranks_of_machine
    chosen = 0 if workers is None else workers
    return in_order(batches.batch_of, steps, workers=chosen, pin_memory=device.startswith("cuda"))
