"""`manage.py up` as its user meets it: a real process with its own servers, ports and data folder."""

import http.client
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from playwright.sync_api import expect

from batonic_site.management.commands.prepare import Command as Prepare
from batonic_site.services.guards import check_named_postgres, check_named_redis, check_ports, only_one
from batonic_site.services.process import ServiceError

PROJECT = Path(__file__).resolve().parents[2]


class Up:
    """A running `manage.py up`, and what it printed so far."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.log = folder / f"up-{len(list(folder.glob('up-*')))}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROJECT / "manage.py"), "up"], env=environment, stdout=log, stderr=log
            )

    @property
    def text(self) -> str:
        return self.log.read_text()

    def children(self) -> dict[str, int]:
        """Return the running children: name of the program -> process id."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                command = (folder / "cmdline").read_text().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == self.process.pid:
                names = (word for word in command if word.startswith("run") or word in ("worker", "beat"))
                name = next(names, Path(command[0]).name)
                found[name if name not in found else f"second {name}"] = int(folder.name)
        return found

    def stop(self) -> float:
        """Press Ctrl-C; return how many seconds it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        return time.monotonic() - started


@pytest.fixture
def environment(tmp_path: Path, free_port: Callable[[], int]) -> dict[str, str]:
    """Return the environment of a machine that has no servers, with a small recording."""
    data = tmp_path / "data"
    data.mkdir()
    call_command("makedataset", str(data / "small.dbn"), records=20000, symbols="CLX5", seed=1, verbosity=0)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DATA_FOLDER": str(tmp_path / "var"),
        "DATA_DIR": str(data),
        "STREAMER_LOOP": "1",
        "WEB_PORT": str(free_port()),
        "WEB_PROCESSES": "2",
        "STREAMER_TCP_PORT": str(free_port()),
        "GATEWAY_PORT": str(free_port()),
    }


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[[], Up]]:
    ups: list[Up] = []

    def start_one() -> Up:
        ups.append(Up(tmp_path, environment))
        return ups[-1]

    yield start_one
    for up in ups:
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait()


def test_up_runs_everything_survives_a_crash_and_stops_cleanly(start, environment, tmp_path, wait_for):
    up = start()
    wait_for(lambda: "small.dbn replaying" in up.text or up.process.poll() is not None, 90, "a replay")
    block = up.text
    assert f"Batonic is at http://localhost:{environment['WEB_PORT']}" in block
    password = (tmp_path / "var" / "admin_password").read_text()
    assert re.search(rf"login +admin\n +password +{re.escape(password)} ", block)
    assert f"127.0.0.1:{environment['GATEWAY_PORT']} (manage.py createapikey makes a key)" in block
    wait_for(
        lambda: re.search(r"CLX5 [\d.]+ x \d+ / [\d.]+ x \d+   [1-9]\d* snapshots stored", up.text),
        20,
        "best bid and ask",
    )

    endpoints = tmp_path / "var" / "endpoints.json"
    assert stat.S_IMODE(endpoints.stat().st_mode) == 0o600
    second = subprocess.run([sys.executable, str(PROJECT / "manage.py"), "up"], env=environment, capture_output=True)
    assert second.returncode == 1 and b"already runs on" in second.stderr

    before = up.children()
    assert {"runstreamer", "runengine", "runweb", "second runweb", "worker", "beat"} <= set(before)
    assert len(before) == 8
    assert {"web.1.log", "web.2.log"} <= {path.name for path in (tmp_path / "var" / "log").iterdir()}
    os.kill(before["runengine"], signal.SIGKILL)
    wait_for(lambda: up.children().get("runengine", before["runengine"]) != before["runengine"], 10, "a new engine")
    assert "engine ended (by SIGKILL); it starts again" in up.text

    os.kill(before["runweb"], signal.SIGKILL)
    wait_for(lambda: re.search(r"web\.[12] ended \(by SIGKILL\); it starts again", up.text), 10, "the end")
    for _ in range(20):  # the other one answers
        with closing(http.client.HTTPConnection("127.0.0.1", int(environment["WEB_PORT"]), timeout=10)) as asked:
            asked.request("GET", "/livez")
            assert asked.getresponse().status == 200
    wait_for(
        lambda: len(up.children()) == 8 and before["runweb"] not in up.children().values(), 10, "a new web process"
    )

    running = up.children()
    assert up.stop() < 10
    assert up.process.returncode == 0 and up.text.rstrip().endswith("stopped")
    assert not endpoints.exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in running.values())


def test_a_person_signs_in_starts_a_replay_and_sees_the_market(
    start, environment, tmp_path, wait_for, page, page_errors
):
    up = start()
    wait_for(lambda: "small.dbn replaying" in up.text or up.process.poll() is not None, 90, "a replay")
    page.goto(f"http://localhost:{environment['WEB_PORT']}/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill((tmp_path / "var" / "admin_password").read_text())
    page.get_by_role("button", name="Sign in").click()

    state, best_bid = page.get_by_test_id("replay-state"), page.get_by_test_id("best-bid")
    expect(state).to_contain_text("replaying")
    page.get_by_role("button", name="Stop").click()
    expect(state).to_contain_text("stopped")
    page.get_by_label("Pace").select_option("10000")
    page.get_by_role("button", name="Start").click()
    expect(state).to_contain_text("replaying")
    expect(page.get_by_test_id("connection")).to_have_text("live")
    expect(best_bid).to_have_text(re.compile(r"^\d+\.\d\d$"))
    expect(best_bid).not_to_have_text(best_bid.text_content())

    page.get_by_role("link", name="History").click()
    page.get_by_role("button", name="Auto fill").click()
    page.get_by_role("button", name="Query").click()
    for title in ("Spread", "Mid price", "Top-of-book size"):
        expect(page.get_by_role("img", name=title).locator("path").first).to_have_attribute(
            "d", re.compile(r"^M.+[HV]")
        )
    assert page_errors == []
    assert up.stop() < 10


def test_up_says_which_setting_names_a_busy_port(start, environment):
    import socket

    with socket.create_server(("127.0.0.1", int(environment["WEB_PORT"]))):
        up = start()
        assert up.process.wait(20) == 1
    assert f"WEB_PORT: port {environment['WEB_PORT']} is in use by another program" in up.text


def test_ports_that_are_free_are_no_fault(free_port):
    check_ports({"WEB_PORT": free_port()})


def test_two_settings_cannot_share_a_port(free_port):
    port = free_port()
    with pytest.raises(ServiceError, match=f"WEB_PORT and STREAMER_TCP_PORT are both {port}"):
        check_ports({"WEB_PORT": port, "STREAMER_TCP_PORT": port})


def test_a_named_server_that_does_not_answer_is_told_at_once(free_port):
    with pytest.raises(ServiceError, match="PostgreSQL named by the environment does not answer"):
        check_named_postgres(f"host=127.0.0.1 port={free_port()} dbname=x user=x")
    with pytest.raises(ServiceError, match="REDIS_URL: the Redis named there does not answer"):
        check_named_redis(f"redis://127.0.0.1:{free_port()}/0")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("STREAMER_RATE", "abc", "STREAMER_RATE='abc' is not valid: expected a whole number"),
        ("DEPTH", "1_0", "DEPTH='1_0' is not valid"),
        ("SYMBOL", "CL\nX5", "SYMBOL='CL\\nX5' is not valid"),
        ("DATA_FOLDER", "/etc/passwd/x", "DATA_FOLDER='/etc/passwd/x' is not valid: expected a folder"),
        ("DATA_DIR", "/etc/passwd", "DATA_DIR='/etc/passwd' is not valid: expected a folder"),
        ("PG_CONNINFO", "garbage", "PG_CONNINFO is not valid: expected a libpq connection string"),
    ],
)
def test_a_wrong_value_stops_up_with_one_sentence(environment, name, value, said):
    up = subprocess.run(
        [sys.executable, str(PROJECT / "manage.py"), "up"],
        env=environment | {name: value},
        capture_output=True,
        text=True,
    )
    assert up.returncode == 1 and up.stdout == ""
    assert up.stderr.startswith(said) and up.stderr.count("\n") == 1


def test_a_data_folder_is_free_again_after_use(tmp_path):
    with only_one(tmp_path / "var"), pytest.raises(ServiceError, match="already runs"), only_one(tmp_path / "var"):
        pass
    with only_one(tmp_path / "var"):
        pass


def test_prepare_makes_the_admin_account_once(db, data_folder, settings):
    settings.ADMIN_USER, settings.ADMIN_PASSWORD = "admin", ""
    assert Prepare().make_admin() == "admin made"
    assert Prepare().make_admin() == "admin is there"
    user = get_user_model().objects.get(username="admin")
    kept = data_folder / "admin_password"
    assert user.is_superuser and user.check_password(kept.read_text())
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_prepare_follows_a_named_admin_password_and_keeps_none(db, data_folder, settings):
    settings.ADMIN_USER, settings.ADMIN_PASSWORD = "boss", "first-password"
    Prepare().make_admin()
    settings.ADMIN_PASSWORD = "second-password"
    assert Prepare().make_admin() == "boss has the password of ADMIN_PASSWORD now"
    assert get_user_model().objects.get(username="boss").check_password("second-password")
    assert not (data_folder / "admin_password").exists()


def test_prepare_makes_a_sample_where_there_is_no_recording(transactional_db, data_folder, settings, monkeypatch):
    monkeypatch.setattr("batonic_site.management.commands.prepare.SAMPLE_RECORDS", 5000)
    settings.STATIC_ROOT = data_folder / "static"
    call_command("prepare")
    made = settings.DATA_DIR / "sample.dbn"
    first = made.stat().st_mtime_ns
    call_command("prepare")
    assert made.stat().st_mtime_ns == first, "a second preparation makes nothing again"
