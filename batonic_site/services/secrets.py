"""Secrets that are made on first use and kept in the data folder, readable by their owner only. Floor 5."""

import os
import secrets
from pathlib import Path


def stored_secret(path: Path, length: int = 50) -> str:
    """Return the secret kept at ``path``, making it on first use. Two first users get the same one."""
    try:
        return path.read_text()
    except FileNotFoundError:
        private_folder(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(length)[:length])
    try:
        os.link(draft, path)  # fails when somebody was first, and is never seen half-written
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text()


def private_folder(path: Path) -> Path:
    """Make the folder and those above it that are missing, for their owner only; leave existing ones as they are."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    return path
