"""How this process holds memory: what is large and free goes back to the system. Floor 3.

glibc keeps blocks of up to 32 MB for itself once some of that size were freed. The arrays of a book that grew are such
blocks: after ten replays of a million resting orders an engine held 80 MB more than after one.
"""

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # of malloc.h
LARGE_BYTES: Final = 8 << 20  # above what one pass hands over, which is better used again


def return_large_blocks() -> bool:
    """Take each block of 8 MB and more from the system and give it back when it is freed, from now on.

    False where the C library knows no such switch: nothing changes there.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES) == 1
