"""Child processes that never outlive us: how each server and worker is started and stopped. Floor 5."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from batonic_site.services.secrets import private_folder

_PR_SET_PDEATHSIG: Final = 1
_LOG_BYTES: Final = 20_000_000
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ServiceError(Exception):
    """A server or worker cannot be started; the message says what to do about it."""


@dataclass(frozen=True)
class Program:
    """What to run, where its output goes (None: where ours goes), and the signal that ends it in good order."""

    name: str
    command: list[str]
    log_path: Path | None
    stop_signal: signal.Signals = signal.SIGTERM
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    user: int | None = None
    inherited: tuple[int, ...] = ()
    """File descriptors of ours that the program gets, under the same numbers."""

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the program in a session of its own: a Ctrl-C in our terminal reaches us only, and we pass it on."""
        with _open_log(self.log_path) if self.log_path else nullcontext() as log:
            return subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log and subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self.inherited,
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
                preexec_fn=_die_with_parent(self.stop_signal, os.getpid()),
            )

    def log_tail(self, lines: int = 12) -> str:
        """Return the last lines of the log, for error messages."""
        if self.log_path is None:
            return ""
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def wait_until(
        self,
        ready: Callable[[], bool],
        process: "subprocess.Popen[bytes]",
        timeout_s: float,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Wait until ``ready()``; raise with the end of the log when the process ends or the time is over.

        ``pause`` is called with seconds between two looks; what it raises ends the wait.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            if process.poll() is not None:
                raise ServiceError(f"{self.name} ended with status {process.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                stop(process, self.stop_signal, timeout_s=3)
                raise ServiceError(f"{self.name} was not ready after {timeout_s:.0f} s:\n{self.log_tail()}")
            pause(0.02)


def _open_log(path: Path) -> IO[bytes]:
    """Open a log for appending; one that has grown large is put aside, over the one that was put aside before."""
    private_folder(path.parent)
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def stop(process: "subprocess.Popen[bytes]", how: signal.Signals = signal.SIGTERM, timeout_s: float = 8.0) -> int:
    """End a child in good order, by SIGKILL when that takes too long; return its exit status."""
    if process.poll() is None:
        process.send_signal(how)
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        kill_group(process)
        return process.wait()


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    """Send SIGKILL to a child and to the children it made in its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int, host: str = "127.0.0.1") -> bool:
    try:
        socket.create_connection((host, port), 0.5).close()
    except OSError:
        return False
    return True


def _die_with_parent(how: signal.Signals, parent: int) -> Callable[[], None] | None:
    """Return what the child runs before the program: ask the kernel for ``how`` when we die, even by SIGKILL.

    None where the kernel cannot do it (macOS): there a SIGKILL of the supervisor leaves children behind.
    """
    if _libc is None:
        return None
    prctl = _libc.prctl  # looked up here: nothing but the call itself may run between fork and exec

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, how)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return before_exec
