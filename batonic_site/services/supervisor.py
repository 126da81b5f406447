"""Keeps the processes of `manage.py up` running, and ends them in good order. Floor 5.

One thread, one step: `tend()` looks at every child, and restarts one that ended. No child outlives the supervisor.
"""

import shlex
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from batonic_site.services.process import Program, ServiceError, kill_group

FIRST_DELAY_S: Final = 0.2
LAST_DELAY_S: Final = 5.0
STEADY_S: Final = 20.0  # a child that ran so long starts again with the first delay


def read_procfile(path: Path, log_folder: Path, environment: Mapping[str, str]) -> list[Program]:
    """Return the programs of a Procfile: ``name: command`` a line; ``python`` means the one that runs us."""
    programs = []
    for line in path.read_text().splitlines():
        name, colon, command = line.partition(":")
        if not colon or line.startswith("#"):
            continue
        try:
            words = shlex.split(string.Template(command).substitute(environment))
        except KeyError as missing:
            raise ServiceError(f"{path}: {name} needs the variable {missing}, which is not set.") from missing
        words = [sys.executable if word == "python" else word for word in words]
        programs.append(Program(name.strip(), words, log_folder / f"{name.strip()}.log", environment=environment))
    return programs


@dataclass
class Child:
    """A program and the process that runs it now."""

    program: Program
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    delay_s: float = FIRST_DELAY_S
    restart_at: float = 0.0
    restarts: int = 0


@dataclass
class Supervisor:
    """Servers are started first and stopped last; clients of them are stopped together."""

    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    hasten: Callable[[], bool] = lambda: False  # asked while stopping: whether patience is over
    clients_stop_s: float = 5.5
    servers_stop_s: float = 3.0
    servers: list[Child] = field(default_factory=list)
    clients: list[Child] = field(default_factory=list)

    def start_server(self, program: Program) -> "subprocess.Popen[bytes]":
        return self._add(self.servers, program)

    def start_client(self, program: Program) -> "subprocess.Popen[bytes]":
        return self._add(self.clients, program)

    def tend(self) -> bool:
        """Restart what ended, each after its delay; return whether something was done."""
        return sum(self._tend(child) for child in (*self.servers, *self.clients)) > 0

    def failing(self) -> list[Program]:
        """Return the programs that do not run at this moment."""
        return [child.program for child in (*self.servers, *self.clients) if not _runs(child)]

    def stop(self) -> list[str]:
        """End the clients, then the servers; return the names of those that had to be killed."""
        late = self._stop(self.clients, self.clients_stop_s, self.hasten)
        return late + self._stop(self.servers, self.servers_stop_s, lambda: False)  # what is stored stays whole

    def _add(self, children: list[Child], program: Program) -> "subprocess.Popen[bytes]":
        child = Child(program)
        children.append(child)
        return self._start(child)

    def _start(self, child: Child) -> "subprocess.Popen[bytes]":
        child.process = child.program.start()
        child.started_at = self.clock()
        return child.process

    def _tend(self, child: Child) -> bool:
        """Step one child on: 1. it runs, 2. it has just ended, 3. it waits for its restart, 4. its time has come."""
        now = self.clock()
        if child.process is not None:
            if _runs(child):
                return False
            if now - child.started_at > STEADY_S:
                child.delay_s = FIRST_DELAY_S
            self.say(
                f"{child.program.name} ended ({_describe(child.process.returncode)}); it starts again in "
                f"{child.delay_s:.1f} s. Its log: {child.program.log_path}"
            )
            kill_group(child.process)
            child.process = None
            child.restart_at = now + child.delay_s
            child.delay_s = min(child.delay_s * 2, LAST_DELAY_S)
            return True
        if now < child.restart_at:
            return False
        self._start(child)
        child.restarts += 1
        return True

    def _stop(self, children: Iterable[Child], timeout_s: float, hasten: Callable[[], bool]) -> list[str]:
        running = [child for child in children if _runs(child)]
        for child in running:
            assert child.process is not None
            child.process.send_signal(child.program.stop_signal)
        deadline = self.clock() + timeout_s
        while any(_runs(child) for child in running) and self.clock() < deadline and not hasten():
            time.sleep(0.05)
        late = [child for child in running if _runs(child)]
        for child in running:
            assert child.process is not None
            kill_group(child.process)
            child.process.wait()
            child.process = None
        return [child.program.name for child in late]


def _runs(child: Child) -> bool:
    return child.process is not None and child.process.poll() is None


def _describe(status: int) -> str:
    return f"by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
