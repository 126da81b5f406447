"""What must hold before anything is started on a machine: the data folder and the ports are free. Floor 5."""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from batonic_site.services.process import ServiceError, is_listening
from batonic_site.services.secrets import private_folder


@contextmanager
def only_one(data_folder: Path) -> Iterator[None]:
    """Hold the data folder for this process; the kernel gives it back however we end."""
    with (private_folder(data_folder) / "up.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError(
                f"Batonic already runs on {data_folder}; a second one needs its own DATA_FOLDER."
            ) from None
        yield


def check_ports(ports: Mapping[str, int]) -> None:
    """Raise where another program already listens; ``ports`` is by the name of the setting."""
    for name, port in ports.items():
        if is_listening(port):
            raise ServiceError(f"{name}: port {port} is in use by another program. Choose another: {name}={port + 1}")
