"""A real web process against the test database, and readers who sign in to it."""

import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command

from batonic_site.services.process import Program, stop
from batonic_site.tests.fixtures import MANAGE, child_environment

PASSWORD = "a-long-password"


@pytest.fixture(scope="session")
def static_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collect the static files once for every web process of the run."""
    folder, usual = tmp_path_factory.mktemp("static"), settings.STATIC_ROOT
    settings.STATIC_ROOT = folder
    try:
        call_command("collectstatic", interactive=False, verbosity=0)
    finally:
        settings.STATIC_ROOT = usual
    return folder


@pytest.fixture(scope="session")
def shared_web(
    django_db_setup: None, static_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Run one daphne for every test that does not stop it, and return its environment."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "static").symlink_to(static_files)
    environment = child_environment(folder)
    program = Program("runweb", [sys.executable, str(MANAGE), "runweb"], folder / "runweb.log", environment=environment)
    process = program.start()
    try:
        program.wait_until(lambda: listens(environment), process, timeout_s=60)
        yield environment
    finally:
        stop(process, signal.SIGTERM, timeout_s=5)


@pytest.fixture
def web(shared_web: dict[str, str], transactional_db: None, redis_client: redis.Redis) -> str:
    """Return the base URL of a web process; its database and Redis are empty."""
    return f"http://127.0.0.1:{shared_web['WEB_PORT']}"


def listens(environment: dict[str, str]) -> bool:
    """Say whether the web process of an environment takes connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(environment["WEB_PORT"]))) == 0


@pytest.fixture
def reader(transactional_db: None) -> Any:
    """A user who may look at everything and control nothing."""
    return get_user_model().objects.create_user("rita", password=PASSWORD)


@pytest.fixture
def operator(transactional_db: None) -> Any:
    """A user who may start and stop replays."""
    user = get_user_model().objects.create_user("otto", password=PASSWORD)
    user.user_permissions.add(apps.get_model("auth", "Permission").objects.get(codename="control_replay"))
    return user
