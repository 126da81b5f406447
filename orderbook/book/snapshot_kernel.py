"""The compiled look at how much of a snapshot block others may read. Floor 0.

Importing it loads numba. With the GIL, which it holds for a microsecond: to give it away and to get it back may take a
hundred.
"""

# numba types these functions by the arrays that they are given.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic


@intrinsic
def _acquire(_context, array):
    """Return the first element of an array, and see all that was written before it was released."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(data, ordering="acquire", align=8)

    return types.int64(array), generate


@numba.njit(cache=True)
def handed(counter):
    """Return how many snapshots of a block are handed over, by its counter ``SnapshotBlock.handed``. Cost: 0.3 us."""
    return _acquire(counter)


def warm_up() -> None:
    """Load or compile it now. Cost: 10 ms, 0.3 s the first time."""
    handed(np.zeros(1, np.int64))
