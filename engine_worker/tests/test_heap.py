"""That the process gives memory back, where the C library lets it."""

import platform
import subprocess
import sys

import pytest

START = """
import sys
from pathlib import Path

import numpy as np

from engine_worker.heap import return_free_pages, return_large_blocks


def held_mb():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


if "returning" in sys.argv:
    assert return_large_blocks()
before = held_mb()
"""
LARGE_ONES = """
np.ones(20 << 20, np.uint8)  # freed at once: blocks of this size are the C library's own from here on
large, small = [], []
for _ in range(5):  # small ones that stay, between large ones that go
    large.append(np.ones(20 << 20, np.uint8))
    small.append(np.ones(200 << 10, np.uint8))
del large
print(held_mb() - before)
"""
SMALLER_ONES = """
blocks = [np.ones(1 << 20, np.uint8) for _ in range(50)]
del blocks[:-1]  # the last one lies above them
print(held_mb() - before)
assert return_free_pages()
print(held_mb() - before)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the switches")


def held_mb(program: str, how: str) -> list[float]:
    command = [sys.executable, "-c", START + program, how]
    return [float(line) for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]


def test_memory_of_large_arrays_is_given_back_when_they_are_gone() -> None:
    (keeping,), (returning,) = held_mb(LARGE_ONES, "keeping"), held_mb(LARGE_ONES, "returning")
    assert keeping > 50
    assert returning < 10


def test_smaller_ones_are_given_back_when_it_is_asked_for() -> None:
    held, rest = held_mb(SMALLER_ONES, "returning")
    assert held > 40
    assert rest < 10
