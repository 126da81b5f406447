"""Starts one real PostgreSQL and one real Valkey for every process that runs tests, before Django reads its settings.

A run without ``-n`` has one such process, a run with it several: the workers of pytest-xdist. What hands the tests out
to them starts nothing and sets nothing, because the workers take its environment over.

A PostgreSQL named by the environment is used instead: each worker has a database of its own there. A Redis is not,
because tests empty it. Ours end with their process, however it ends.
"""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import django
import pytest
from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher

from batonic_site.services.postgres import Postgres
from batonic_site.services.valkey import Valkey

pytest_plugins = ["batonic_site.tests.fixtures"]

if settings.configured:
    raise pytest.UsageError("Unset DJANGO_SETTINGS_MODULE: the settings must be read after the test servers started.")


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers, then Django: pytest-django takes what it finds set up."""
    if config.getoption("dist", "no") != "no":
        return
    folder = Path(tempfile.mkdtemp(prefix="batonic-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "static").mkdir()
    os.environ |= {
        "DATA_FOLDER": str(folder),
        "DATA_DIR": str(folder / "data"),
        "DJANGO_SETTINGS_MODULE": "batonic_site.settings",
        "DJANGO_ALLOW_ASYNC_UNSAFE": "1",  # playwright's sync face keeps an event loop in the test thread
    }
    if not (os.environ.get("PG_CONNINFO") or os.environ.get("DATABASE_URL")):
        postgres = Postgres(folder, fsync=False)
        atexit.register(postgres.stop)
        postgres.start()
        os.environ["PG_CONNINFO"] = postgres.conninfo()
    valkey = Valkey(folder)
    atexit.register(valkey.stop)
    valkey.start()
    os.environ["REDIS_URL"] = valkey.url
    django.setup()
    PBKDF2PasswordHasher.iterations = 1  # a million rounds would take a third of a second for each user of a test


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what importing and collecting made, half a million objects, away from the garbage collector.

    It would look through all of them again and again: a tenth of the time of the whole suite.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
