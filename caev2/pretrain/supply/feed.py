"""Batches on their way to the device, one ahead of their use."""

from collections import deque
from collections.abc import Iterator

import torch

from caev2.pretrain.supply.batches import Batch

STEPS_AHEAD = 2
"""How many steps the device may be behind the process that gives it work: each holds a batch in the device's memory."""


def on_device(batches: Iterator[Batch], device: str) -> Iterator[Batch]:
    """The same batches on a device; on a GPU the next one travels on a stream of its own while this one is used."""
    if not device.startswith("cuda"):
        return (batch.to(device) for batch in batches)
    return _ahead(batches, device)


def _ahead(batches: Iterator[Batch], device: str) -> Iterator[Batch]:
    stream, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    behind = deque()
    batch = _send(next(batches, None), device, stream)
    while batch is not None:
        computing.wait_stream(stream)
        for tensor in batch.tensors().values():
            tensor.record_stream(computing)  # or its memory would be taken for the next one while it is still read
        yield batch
        done = torch.cuda.Event(blocking=True)  # or waiting would keep a core busy that a worker has use for
        done.record(computing)
        behind.append(done)
        if len(behind) > STEPS_AHEAD:
            behind.popleft().synchronize()
        batch = _send(next(batches, None), device, stream)  # while the step that was just begun is computed


def _send(batch: Batch | None, device: str, stream: torch.cuda.Stream) -> Batch | None:
    if batch is None:
        return None
    with torch.cuda.stream(stream):
        return batch.to(device)
