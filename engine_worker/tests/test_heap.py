"""That the process gives large blocks back, where the C library lets it."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pathlib import Path

import numpy as np

from engine_worker.heap import return_large_blocks

if sys.argv[1] == "returning":
    assert return_large_blocks()


def held_mb():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


before = held_mb()
np.ones(20 << 20, np.uint8)  # freed at once: blocks of this size are the C library's own from here on
large, small = [], []
for _ in range(5):  # small ones that stay, between large ones that go
    large.append(np.ones(20 << 20, np.uint8))
    small.append(np.ones(200 << 10, np.uint8))
del large
print(held_mb() - before)
"""


def held_mb(how: str) -> float:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the switch")
def test_memory_of_large_arrays_is_given_back_when_they_are_gone() -> None:
    assert held_mb("keeping") > 50
    assert held_mb("returning") < 10
