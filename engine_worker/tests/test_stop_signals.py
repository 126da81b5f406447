"""Signals that ask for the end, in real processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from engine_worker.stop_signals import STOPPING

PROGRAM = """
import time
from engine_worker.stop_signals import StopSignals

stop = StopSignals()
print("listens", flush=True)
while not stop.wait(0.001):
    pass
until = time.monotonic() + 0.02
while time.monotonic() < until:  # it ends by itself, whatever comes meanwhile
    pass
print("ended", flush=True)
"""


def ended_by(signals: Sequence[int]) -> str:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "listens\n"
    for number in signals:
        if process.poll() is None:
            os.kill(process.pid, number)
    try:
        return process.communicate(timeout=10)[0]
    finally:
        process.kill()


@pytest.mark.parametrize("number", STOPPING)
def test_one_signal_is_enough(number: int) -> None:
    assert ended_by([number]) == "ended\n"


def test_nobody_is_too_impatient() -> None:
    for _ in range(30):  # with a lock in the handler one process in ten hangs
        assert ended_by([signal.SIGTERM, signal.SIGINT, signal.SIGTERM] * 20) == "ended\n"
