"""Memory that a step gives back, kept for the next one."""

import ctypes

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt, in <malloc.h>
_LARGE_BYTES = 1 << 30
_ALL_BYTES = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, where the C library is glibc; return whether it does so now.

    Training on a CPU asks for the same tensors in every step. glibc gives large ones back to the system, which has to
    clear their pages when they are asked for again: 100,000 page faults in a step of `small` with 16 images, some
    percent of its time. For commands that train: a process stays as large as it once was, and that cannot be undone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another system, or another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)) and bool(mallopt(_TRIM_THRESHOLD, _ALL_BYTES))
