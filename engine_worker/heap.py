"""How this process holds memory: what is free goes back to the system. Floor 3.

glibc keeps what is freed in two ways. Blocks of up to 32 MB stay its own once some of that size were freed; the arrays
of a book that grew are such blocks: after ten replays of a million resting orders an engine held 80 MB more than after
one. And smaller ones stay below any block that still lives: 2 to 17 MB more, by chance.
"""

import ctypes
from typing import Any, Final

_M_MMAP_THRESHOLD: Final = -3  # of malloc.h
LARGE_BYTES: Final = 8 << 20  # above what one pass hands over, which is better used again


def return_large_blocks() -> bool:
    """Take each block of 8 MB and more from the system and give it back when it is freed, from now on.

    False where the C library knows no such switch: nothing changes there.
    """
    mallopt = _of_c_library("mallopt")
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES) == 1


def return_free_pages() -> bool:
    """Give back what is free now in smaller blocks, every thread's. Whether there was something.

    Cost: a millisecond or two behind a replay of a million resting orders, the GIL released.
    """
    trim = _of_c_library("malloc_trim")
    return trim is not None and trim(0) == 1


def _of_c_library(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
