"""Cores dealt out to processes that have a GPU each, so that none takes all of them for its data workers."""

import os
from collections.abc import Collection


def own_cores() -> frozenset[int]:
    """Those that this process may use; empty where the system does not say."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def share_of(cores: Collection[int], place: int, processes: int) -> frozenset[int]:
    """Of each of some processes its share: neighbours, and nobody else's unless there are fewer cores than processes.

    Args:
        cores: All there are.
        place: Which process, from 0.
        processes: How many there are.
    """
    ordered = sorted(cores)
    first, end = (len(ordered) * one // processes for one in (place, place + 1))
    return frozenset(ordered[first : max(end, first + 1)])


def keep_to(cores: Collection[int]) -> None:
    """Have this process, and those it starts, use these cores; none: as it is."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
