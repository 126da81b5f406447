"""The compiled part of the histogram: durations into buckets. Floor 3.

Self-contained: numba's cache does not notice a change in another file. With the GIL, which a call holds for a
microsecond: to give it away and to get it back may take a hundred.
"""

# numba types these functions by the arrays that they are given.
# mypy: disable-error-code="no-untyped-def"

import math
from typing import Final

import numpy as np
from numba import njit

SUB_BITS: Final = 7
SUB_BUCKETS: Final = 1 << SUB_BITS
MAX_BITS: Final = 41  # about 18 minutes; longer ones share the last bucket
BUCKETS: Final = (MAX_BITS - SUB_BITS) * SUB_BUCKETS + SUB_BUCKETS

# Places of ``totals``.
COUNT: Final = 0
SUM: Final = 1
LONGEST: Final = 2


@njit(cache=True)
def add(counts, totals, ns, times):
    """Count one duration, ns, or so many alike; one below 0 counts as 0. Cost: 3 ns, 0.4 us to be called."""
    ns = max(ns, np.int64(0))
    bits = min(math.frexp(float(ns))[1], MAX_BITS)
    shift = max(bits - SUB_BITS - 1, 0)
    counts[min(shift * SUB_BUCKETS + (ns >> shift), BUCKETS - 1)] += times
    totals[COUNT] += times
    totals[SUM] += ns * times
    totals[LONGEST] = max(totals[LONGEST], ns)


@njit(cache=True)
def add_many(counts, totals, durations):
    """Count durations, ns. Cost: 3 ns each, 0.4 us to be called."""
    for ns in durations:
        add(counts, totals, ns, 1)
