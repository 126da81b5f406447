"""The servers that come with pip: for root and for an ordinary user, after crashes, touching nothing else."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from batonic_site.services.postgres import _NOBODY, Postgres
from batonic_site.services.process import ServiceError
from batonic_site.services.valkey import Valkey, connect

PROJECT = Path(__file__).resolve().parents[2]

# Starts both servers, stores something, and ends as its second word says: in good order, or by SIGKILL.
SESSION = """
import json, os, signal, sys
from pathlib import Path
import psycopg, redis
from batonic_site.services.postgres import Postgres
from batonic_site.services.valkey import Valkey

postgres, valkey = Postgres(Path(sys.argv[1])), Valkey(Path(sys.argv[1]))
postgres.start(), valkey.start()
with psycopg.connect(postgres.conninfo()) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
    connection.execute("INSERT INTO kept VALUES (1)")
with psycopg.connect(postgres.conninfo()) as connection:
    kept = connection.execute("SELECT count(*) FROM kept").fetchone()[0]
with redis.Redis.from_url(valkey.url) as client:
    client.set("key", "value")
pids = [postgres._process.pid, valkey._process.pid]
print(json.dumps({"uid": os.geteuid(), "kept": kept, "pids": pids}), flush=True)
if sys.argv[2] == "crash":
    os.kill(os.getpid(), signal.SIGKILL)
postgres.stop(), valkey.stop()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a folder that everybody can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="batonic-place-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def session(
    data_folder: Path, way: list[str], end: str = "stop", uid: int | None = None, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run SESSION with home and temporary folder in ``elsewhere/``, where nothing must appear."""
    elsewhere = data_folder.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    if uid is not None:
        os.chown(elsewhere, uid, uid)
        os.chown(data_folder.parent, uid, uid)
    return subprocess.run(
        [*way, sys.executable, "-B", "-c", SESSION, str(data_folder), end],
        cwd=elsewhere,
        env={
            "PATH": os.environ["PATH"] if path is None else path,
            "PYTHONPATH": str(PROJECT),
            "HOME": str(elsewhere),
            "TMPDIR": str(elsewhere),
        },
        capture_output=True,
        text=True,
        timeout=60,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )


def as_root() -> list[str]:
    """Return the prefix that makes a process root; none when we are."""
    return [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]


def as_ordinary_user() -> list[str]:
    """Return the prefix that makes a process an ordinary user; none when we are."""
    return [] if os.geteuid() else ["unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}"]


def modes(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return mode and owner of a folder and of every folder above it."""
    return {
        str(path): (stat.st_mode, stat.st_uid, stat.st_gid)
        for path in (folder, *folder.parents)
        if (stat := path.stat())
    }


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def skip_without_namespaces(way: list[str]) -> None:
    if way and subprocess.run([*way, "true"], capture_output=True).returncode:
        pytest.skip("this system allows no user namespace, so only one kind of user can be tried")


@pytest.mark.parametrize("who", [as_root, as_ordinary_user])
def test_both_servers_run_for_any_user_and_touch_nothing_outside_the_data_folder(place, who):
    skip_without_namespaces(who())
    place.chmod(0o700)  # a closed home directory
    before = modes(place)
    for kept in (1, 2):
        run = session(place / "var", who(), "stop")
        assert run.returncode == 0, run.stderr
        told = json.loads(run.stdout)
        assert (told["uid"] == 0) is (who is as_root)
        assert told["kept"] == kept, "what was stored must be there after a restart"
        assert all(ended(pid) for pid in told["pids"])
    assert modes(place) == before
    assert list((place / "elsewhere").iterdir()) == []
    assert {path.name for path in place.iterdir()} == {"var", "elsewhere"}


def test_a_real_ordinary_user_can_run_both_servers(place):
    reach = [sys.executable, "-B", "-c", "import psycopg"]
    if os.geteuid():
        pytest.skip("we are an ordinary user ourselves: the test above has shown it")
    try:
        subprocess.run(reach, cwd="/", user=_NOBODY, group=_NOBODY, extra_groups=[], capture_output=True, check=True)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip(f"the user nobody cannot reach {sys.executable}; the test above showed it in a user namespace")
    run = session(place / "var", [], uid=_NOBODY)
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the server another user's id")
def test_root_without_user_namespaces_gives_the_server_to_nobody(place):
    before = modes(place)
    run = session(place / "var", [], path="/nonexistent")
    if "cannot reach" in run.stderr:
        assert "Run this as an ordinary user, or start a PostgreSQL and set DATABASE_URL." in run.stderr
    else:
        assert run.returncode == 0, run.stderr
        assert (place / "var/postgres/data").stat().st_uid == _NOBODY
    assert modes(place) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the server another user's id")
def test_root_without_namespaces_in_a_closed_folder_is_told_what_to_do(place):
    place.chmod(0o700)
    run = session(place / "var", [], path="/nonexistent")
    assert "Run this as an ordinary user, or start a PostgreSQL and set DATABASE_URL." in run.stderr


def test_servers_end_with_a_killed_parent_and_lose_nothing(place, wait_for):
    run = session(place / "var", [], "crash")
    assert run.returncode == -signal.SIGKILL
    wait_for(lambda: all(ended(pid) for pid in json.loads(run.stdout)["pids"]), what="the end of the servers")
    assert json.loads(session(place / "var", []).stdout)["kept"] == 2


def test_secrets_are_readable_by_their_owner_only(place):
    session(place / "var", [])
    for name in ("postgres/password", "valkey/password", "valkey/valkey.conf"):
        assert (place / "var" / name).stat().st_mode & 0o077 == 0
    assert (place / "var").stat().st_mode & 0o077 == 0


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(tmp_path / "var", fsync=False)
    yield server
    server.stop()


def test_a_second_server_on_the_same_folder_is_refused_with_the_way_out(postgres, tmp_path):
    postgres.start()
    second = Postgres(tmp_path / "var")
    second.predecessor_timeout_s = 0.2
    with pytest.raises(ServiceError, match=r"already runs on .*\(process \d+\).*kill -INT"):
        second.prepare()


def test_a_lock_left_by_a_crash_does_not_stop_the_next_start(postgres):
    postgres.start()
    postgres.stop()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (postgres.cluster / "postmaster.pid").write_text(f"{stranger.pid}\n{postgres.cluster}\n")
        postgres.start()
    finally:
        stranger.kill()
        stranger.wait()
    with psycopg.connect(postgres.conninfo()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_crashed_postgres_recovers_what_was_committed(postgres, wait_for):
    postgres.start()
    with psycopg.connect(postgres.conninfo()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    assert postgres._process is not None
    postgres._process.kill()
    postgres._process.wait()
    wait_for(lambda: _starts(postgres), what="a start after the crash")
    with psycopg.connect(postgres.conninfo()) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)


def _starts(postgres: Postgres) -> bool:
    try:
        postgres.start()
    except ServiceError:  # the backends of the killed server are not all gone yet
        return False
    return True


def test_an_interrupted_first_start_is_made_again(postgres):
    (postgres.folder / "data.new" / "base").mkdir(parents=True)
    postgres.start()
    assert not (postgres.folder / "data.new").exists()


def test_a_server_that_cannot_start_says_why_with_its_log(postgres):
    postgres.start()
    postgres.stop()
    (postgres.cluster / "postgresql.conf").write_text("no such setting = 1\n")
    with pytest.raises(ServiceError, match="syntax error"):
        postgres.start()


def test_valkey_asks_for_its_password(tmp_path):
    server = Valkey(tmp_path / "var")
    server.start()
    try:
        with connect(f"redis://127.0.0.1:{server.port}/0") as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with connect(server.url) as client:
            assert client.config_get("save") == {"save": ""}
    finally:
        server.stop()
