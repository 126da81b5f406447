"""Starts one real PostgreSQL and one real Valkey for the whole run, before Django reads its settings.

A PostgreSQL named by the environment is used instead: tests have a database of their own there. A Redis is not,
because tests empty it. Ours end with this process, however it ends.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from django.conf import settings

from batonic_site.services.postgres import Postgres
from batonic_site.services.valkey import Valkey

pytest_plugins = ["batonic_site.tests.fixtures"]

if settings.configured:
    raise pytest.UsageError("Unset DJANGO_SETTINGS_MODULE: the settings must be read after the test servers started.")

_data_folder = Path(tempfile.mkdtemp(prefix="batonic-test-"))
atexit.register(shutil.rmtree, _data_folder, ignore_errors=True)
(_data_folder / "static").mkdir()
os.environ |= {
    "DATA_FOLDER": str(_data_folder),
    "DATA_DIR": str(_data_folder / "data"),
    "DJANGO_SETTINGS_MODULE": "batonic_site.settings",
    "DJANGO_ALLOW_ASYNC_UNSAFE": "1",  # playwright's sync face keeps an event loop in the test thread
}

if not (os.environ.get("PG_CONNINFO") or os.environ.get("DATABASE_URL")):
    _postgres = Postgres(_data_folder, fsync=False)
    atexit.register(_postgres.stop)
    _postgres.start()
    os.environ["PG_CONNINFO"] = _postgres.conninfo()

_valkey = Valkey(_data_folder)
atexit.register(_valkey.stop)
_valkey.start()
os.environ["REDIS_URL"] = _valkey.url
