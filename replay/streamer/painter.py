"""The thread that draws pictures beside the event loop. Floor 1.

There is one: a shadow is not shared between threads, and who came first is served first.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

PAINTER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shadow")

T = TypeVar("T")


async def paint(draw: Callable[..., T], *args: object) -> T:
    """Return what a function returns on the painter's thread; the event loop goes on meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(PAINTER, draw, *args)
