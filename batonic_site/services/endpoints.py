"""Where the embedded servers of this data folder listen, while they run. Floor 5.

`manage.py up` writes the file and removes it at the end, so that a command in a second terminal finds the
same servers. It holds passwords: only its owner may read it.
"""

import json
import os
from pathlib import Path
from typing import TypedDict


class Endpoints(TypedDict, total=False):
    """Connection strings of the servers that were started; a key is missing where the environment named one."""

    pg_conninfo: str
    redis_url: str


def endpoints_path(data_folder: Path) -> Path:
    return data_folder / "endpoints.json"


def read_endpoints(data_folder: Path) -> Endpoints:
    """Return what runs now; empty when nothing does."""
    try:
        endpoints: Endpoints = json.loads(endpoints_path(data_folder).read_text())
    except FileNotFoundError:
        return Endpoints()
    return endpoints


def write_endpoints(data_folder: Path, endpoints: Endpoints) -> None:
    """Write the file so that it is never seen half-written nor by another user."""
    path = endpoints_path(data_folder)
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(endpoints, file)
    draft.replace(path)
