"""How long a process takes until the compiled kernel is ready, measured in processes of their own. Floor 1."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import orderbook

_PROGRAM: Final = """
import time
began = time.perf_counter()
from orderbook.book import kernel_market
imported = time.perf_counter()
kernel_market.warm_up()
print(imported - began, time.perf_counter() - imported)
"""


class StartError(Exception):
    """A process did not start as it should have: it failed, kept nothing, or compiled what was already compiled."""


class Start(NamedTuple):
    """What one process took, s."""

    import_s: float
    warm_up_s: float


def start_once(cache_folder: Path) -> Start:
    """Return what a new process takes. It compiles when numba's cache in this folder is empty, and loads otherwise.

    Raises StartError. Cost: a second, ten more when it compiles.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache_folder)},
        cwd=Path(orderbook.__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise StartError(
            f"expected the kernel to load in a new process, found exit code {done.returncode}: {done.stderr}"
        )
    return Start(*map(float, done.stdout.split()))


def start_figures(cache_folder: Path, warm_runs: int) -> dict[str, list[float]]:
    """Return the start times over an empty cache folder: one process that compiles, then some that load.

    Raises StartError, also when a process that should have loaded compiled.
    """
    cold = start_once(cache_folder)
    kept = _compiled(cache_folder)
    if not kept:
        raise StartError(f"expected the compiled kernel in {cache_folder}, found nothing")
    warm = [start_once(cache_folder) for _ in range(warm_runs)]
    if (found := _compiled(cache_folder)) != kept:
        raise StartError(f"expected a warm start to load what is there, found {len(found - kept)} functions compiled")
    return {
        "cold_start_s": [cold.warm_up_s],
        "warm_start_s": [start.warm_up_s for start in warm],
        "import_s": [start.import_s for start in warm],
    }


def _compiled(folder: Path) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_mtime_ns) for path in folder.rglob("*.nbc")}
