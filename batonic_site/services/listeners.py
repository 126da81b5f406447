"""Which processes of this machine accept on a port, as Linux tells it. Floor 5."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"  # of a row in /proc/net/tcp


def web_pids(port: int) -> tuple[int, ...]:
    """Return the web processes of this machine that listen there; none where the system does not tell (macOS).

    Cost: a look at every open file of every process that we may look at.
    """
    doors = _listening_inodes(port)
    return tuple(sorted(pid for pid in _running("runweb") if doors & _sockets(pid)))


def _listening_inodes(port: int) -> set[str]:
    """Return the kernel's numbers of the sockets that listen on a port."""
    found = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            rows = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
            found |= {row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port}
    return found


def _running(command: str) -> Iterator[int]:
    """Yield the processes that run one of our management commands."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if command in (folder / "cmdline").read_text().split("\0"):
                yield int(folder.name)


def _sockets(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                found.add(str(file.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found
