"""Images cut into batches, batches dealt out to ranks, and put together again in the order of the images.

Every image belongs to one batch and every batch to one rank: none is padded, none is counted twice. Batches are the
same however many ranks there are, and so are the bits of what is computed of them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice

import torch
from torch import Tensor

from caev2.pretrain.supply.loading import cores
from caev2.pretrain.together.ranks import ALONE, Company
from caev2.progress import Progress

BY_ITSELF = Company(ALONE)
"""One process, which shares its work with no other."""

Tensors = dict[str, Tensor]
Compute = Callable[[Iterable[Sequence[int]]], Iterator[Tensors]]
"""What is computed of each of some batches of images, in order; every tensor has a row for each image."""


def in_shares(
    compute: Compute, parts: Sequence[Sequence[int]], *, batch: int, company: Company, progress: Progress
) -> Iterator[Tensors]:
    """What is computed of each of some parts of the images, at the first rank; nothing at the others.

    Args:
        compute: Works on a batch.
        parts: Numbers of images; the same ones at all ranks.
        batch: Images that are worked on together.
        company: Who shares the work.
        progress: Told of the images of the others; `compute` tells of its own.

    Raises:
        Caev2Error: Some rank was refused: the first says what it was told.
    """
    cuts = [deal(part, batch, company) for part in parts]
    made = compute(chain.from_iterable(cuts))
    for part, own in zip(parts, cuts, strict=True):
        pieces = company.together(partial(_take, made, len(own)))
        yield _join(company.collect(pieces))
        if others := len(part) - sum(map(len, own)):
            progress.advance(others)


def decoding_workers(device: str, company: Company) -> int:
    """Processes that decode for this rank: its share of the cores, or one where the cores compute features anyway."""
    return max(1, cores() // company.ranks.per_machine) if device.startswith("cuda") else 1


def deal(part: Sequence[int], batch: int, company: Company) -> list[Sequence[int]]:
    """This rank's batches of a part: one of as many as there are ranks, in turn."""
    mine = slice(company.ranks.index, None, company.ranks.count)
    return [part[first : first + batch] for first in range(0, len(part), batch)][mine]


def _take(made: Iterator[Tensors], count: int) -> list[Tensors]:
    return list(islice(made, count))


def _join(shares: Sequence[Sequence[Tensors]]) -> Tensors:
    """The pieces that ranks computed in turn, one after another."""
    count = sum(map(len, shares))
    pieces = [shares[number % len(shares)][number // len(shares)] for number in range(count)]
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]} if pieces else {}
