"""How long to wait before the next try of something that failed. Pure. Floor 3."""

import random
from collections.abc import Iterator


def backoff(first_s: float, cap_s: float, jitter: random.Random | None = None) -> Iterator[float]:
    """Yield waits without end: each at most twice the one before, none above ``cap_s``, the first at most ``first_s``.

    Each is drawn from the upper half of its range, so that many who lost the same server do not return as one.
    """
    draw = jitter or random.Random()  # noqa: S311 (spreads retries; guards nothing)
    bound = first_s
    while True:
        yield draw.uniform(bound / 2, bound)
        bound = min(bound * 2, cap_s)
