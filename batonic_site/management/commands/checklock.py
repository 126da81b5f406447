"""Do the locked requirement files still answer to pyproject.toml; works without a network. Floor 5."""

import re
import tomllib
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", re.M)


class Command(BaseCommand):
    help = "Compare requirements.txt and requirements-dev.txt with pyproject.toml."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        project = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]
        wanted = project["dependencies"]
        faults = stale(settings.BASE_DIR / "requirements.txt", wanted)
        faults += stale(settings.BASE_DIR / "requirements-dev.txt", wanted + project["optional-dependencies"]["dev"])
        if faults:
            raise CommandError("\n".join([*faults, "Run: make lock"]))


def stale(lock: Path, wanted: list[str]) -> list[str]:
    """Return what ``lock`` lacks: a requirement that it does not name, or names at a version that is not allowed."""
    locked = {canonicalize_name(name): version for name, version in _LOCKED.findall(lock.read_text())}
    faults = []
    for text in wanted:
        requirement = Requirement(text)
        version = locked.get(canonicalize_name(requirement.name))
        if requirement.marker and not requirement.marker.evaluate():
            continue
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            faults.append(f"{lock.name}: expected {text}, found {version or 'nothing'}")
    return faults
