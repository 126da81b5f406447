"""The web processes of one machine: each a daphne of its own, all behind one listening socket. Floor 5.

Whoever starts them opens the socket and keeps it, and they inherit it. So a process that dies is missed by nobody who
comes now: the others accept, or, when there are none, the kernel keeps the door open until the next one is there.

All take from one queue. With a queue for each (SO_REUSEPORT) whoever is in that of a dead or stuck process waits for it
alone. One queue is even enough, because the busier process comes later: `loadws --clients 1000` put 509 and 491, 520
and 484, 582 and 418 on two, at 100 a second; with `--ramp 5000` once 159 and 841.
"""

import resource
import socket
from dataclasses import replace
from typing import Final

from batonic_site.services.process import Program, ServiceError

BACKLOG: Final = 1024
"""Connections that the kernel holds until one of us accepts them; it may allow fewer (net.core.somaxconn)."""
ACCEPTING: Final = "accepting connections"
"""What a web process says in its log when it does; several are behind one socket, so a connection would not tell."""
_MOST_FILES: Final = 65_536


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens there and does not block, as daphne needs it. Raises ServiceError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ServiceError(_refusal(host, port, error)) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ServiceError(_refusal(host, port, error)) from error
    return listener


def web_programs(web: Program, count: int, listener: socket.socket) -> list[Program]:
    """Return ``count`` times the web program, on one socket; several are numbered, in their names and their logs."""
    command = [*web.command, "--socket", str(listener.fileno())]
    shared = replace(web, command=command, inherited=(listener.fileno(),))
    if count == 1:
        return [shared]
    return [_numbered(shared, number) for number in range(1, count + 1)]


def allow_many_sockets() -> None:
    """Take as many open files as the system gives: a client is one, and 1,024 are usual until somebody asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _numbered(web: Program, number: int) -> Program:
    log_path = web.log_path and web.log_path.with_name(f"{web.log_path.stem}.{number}.log")
    return replace(web, name=f"{web.name}.{number}", log_path=log_path)


def _refusal(host: str, port: int, error: OSError) -> str:
    return f"Cannot listen on WEB_HOST={host} WEB_PORT={port}: {error}"
