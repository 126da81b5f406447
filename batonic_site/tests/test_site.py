"""The assembly: health, routing, refusals, logs, and what the processes must not import."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from django.core.exceptions import RequestAborted
from django.db import OperationalError
from django.test import Client
from django.urls import Resolver404, resolve

from batonic_site import health as health_module
from batonic_site import logs
from batonic_site.asgi import application
from orderbook.live import ENGINE_STATUS_KEY, ENGINES_KEY, blank_status
from replay.schedule import TICK_KEY
from replay.streamer.messages import STATUS_KEY

PROJECT = Path(__file__).resolve().parents[2]


def tell_engine(client: redis.Redis, name: str, **changes: object) -> None:
    """Say in Redis what an engine says of itself."""
    client.zadd(ENGINES_KEY, {name: 1})
    client.set(ENGINE_STATUS_KEY.format(name=name), json.dumps(blank_status(name) | changes))


def test_livez_and_readyz_answer_anybody(client, db, redis_client):
    assert client.get("/livez").json() == {"ok": True}
    assert client.get("/readyz").json() == {"ok": True, "missing": []}


def test_readyz_names_what_is_missing_and_nothing_else(client, db, settings, free_port):
    settings.REDIS_URL = f"redis://:secret@127.0.0.1:{free_port()}/0"
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"ok": False, "missing": ["redis"]}


def test_health_needs_a_reader(client, db):
    assert client.get("/api/health").status_code == 401


def test_health_tells_which_part_is_down(admin_client, redis_client, settings, data_folder):
    settings.FEED_PATH.write_text("{}\n")
    health = admin_client.get("/api/health").json()
    assert health["ok"] is False and health["streamer_control_ok"] is False and health["feed_ok"] is False
    assert health["feed_path"] == str(settings.FEED_PATH) and health["feed_size_bytes"] == 3
    assert [reason.split(":")[0] for reason in health["reasons"]] == ["streamer", "worker", "beat", "engine"]


def test_health_is_ok_when_every_part_is(admin_client, redis_client, monkeypatch):
    monkeypatch.setitem(health_module._PROCESSES, "worker", lambda: None)  # replay/tests/test_worker.py has a real one
    tell_engine(redis_client, "engine")
    redis_client.set(STATUS_KEY.format(feed="main"), json.dumps({"state": "IDLE"}))
    redis_client.set(TICK_KEY, 1)
    health = admin_client.get("/api/health").json()
    assert health["ok"] is True and health["reasons"] == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": "connecting"}, "engine: not connected to the feed 127.0.0.1:9000"),
        ({"degraded": {"jsonl": "disk full"}}, "engine: jsonl degraded: disk full"),
        (
            {"state": "connecting", "degraded": {"feed": "127.0.0.1:9000 refuses us (wrong key)"}},
            "engine: feed degraded: 127.0.0.1:9000 refuses us (wrong key)",
        ),
    ],
)
def test_health_tells_what_the_engine_suffers_from(admin_client, redis_client, settings, change, reason):
    settings.FEED_HOST, settings.FEED_PORT = "127.0.0.1", 9000
    tell_engine(redis_client, "engine", **change)
    health = admin_client.get("/api/health").json()
    assert health["feed_ok"] is False and reason in health["reasons"]


def test_health_tells_of_every_engine_and_misses_one_that_is_gone(admin_client, redis_client, monkeypatch):
    monkeypatch.setattr(health_module, "_PROCESSES", dict.fromkeys(health_module._PROCESSES, lambda: None))
    tell_engine(redis_client, "east", spilled=7, on_disk=3, lag_records=5, lag_ms=1.5, queue_capacity_bytes=64)
    tell_engine(redis_client, "west", degraded={"database": "it is away"})
    health = admin_client.get("/api/health").json()
    assert health["reasons"] == ["engine west: database degraded: it is away"]
    east, west = health["engines"]
    assert (east["name"], east["ok"], east["spilled"], east["on_disk"], east["lag_records"]) == ("east", True, 7, 3, 5)
    assert (west["name"], west["ok"], west["degraded"]) == ("west", False, {"database": "it is away"})
    redis_client.delete(ENGINE_STATUS_KEY.format(name="east"))
    tell_engine(redis_client, "west")
    health = admin_client.get("/api/health").json()
    assert health["reasons"] == ["engine east: no heartbeat; is `manage.py runengine` running?"]
    assert [(engine["name"], engine["state"]) for engine in health["engines"]] == [
        ("east", "gone"),
        ("west", "waiting"),
    ]
    redis_client.zrem(ENGINES_KEY, "east")
    assert admin_client.get("/api/health").json()["ok"] is True


def test_health_does_not_wait_for_a_redis_that_is_gone(admin_client, settings, free_port):
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"
    answer = admin_client.get("/api/health").json()
    assert answer["ok"] is False and "worker: unknown without Redis" in answer["reasons"]


def test_without_postgresql_the_api_says_so(client, db, monkeypatch):
    def gone(*args: object, **options: object) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr("replay.keys.find_key", gone)
    monkeypatch.setattr("replay.auth.find_key", gone, raising=False)
    answer = client.get("/api/symbols", headers={"Authorization": "Bearer db-" + "x" * 29})
    assert (answer.status_code, answer.json()) == (503, {"detail": "The database does not answer; try again."})


@pytest.mark.parametrize("address", ["/login/", "/admin/login/"])
def test_a_name_that_no_account_can_have_is_refused_at_both_logins(client, db, address):
    answer = client.post(address, {"username": "x" * 5000, "password": "y"})
    assert answer.status_code == 200 and b"at most 150 characters" in answer.content


def test_a_stranger_is_sent_to_the_login_from_every_page(client, db):
    for path in ("/", "/history/", "/api/docs", "/api/openapi.json"):
        response = client.get(path)
        assert response.status_code == 302 and response["Location"].startswith("/login/"), path


def test_the_api_page_describes_every_route_and_loads_nothing_from_elsewhere(admin_client):
    schema = admin_client.get("/api/openapi.json").json()
    assert {"/api/health", "/api/symbols", "/api/latest", "/api/range", "/api/history", "/api/feed"} <= set(
        schema["paths"]
    )
    page = admin_client.get("/api/docs")
    assert b"https://" not in page.content
    assert "style-src 'self' 'unsafe-inline'" in page["Content-Security-Policy"]
    assert "unsafe-inline" not in admin_client.get("/login/")["Content-Security-Policy"]


def test_errors_of_the_api_have_one_form(admin_client):
    assert admin_client.get("/api/nothing-here").json() == {"detail": "Not Found"}
    missing = admin_client.get("/api/history")
    assert missing.status_code == 400 and isinstance(missing.json()["detail"], str)


def test_an_accident_in_the_api_is_told_without_a_trace(monkeypatch, db):
    client = Client(raise_request_exception=False)
    monkeypatch.setattr("batonic_site.health.connection", None)
    response = client.get("/readyz")
    assert response.status_code == 500 and b"Traceback" not in response.content


def test_every_api_route_is_open_to_its_own_guards_only(db):
    """LoginRequiredMiddleware would answer programs with a redirect to a page."""
    for path in ("/api/health", "/api/symbols", "/api/latest", "/api/feed", "/api/control/replay/status"):
        try:
            assert resolve(path).func.login_required is False, path
        except Resolver404:
            pytest.fail(f"{path} is not there")


async def test_a_websocket_to_an_unknown_address_is_refused():
    communicator = WebsocketCommunicator(application, "/elsewhere", headers=[(b"origin", b"http://localhost")])
    connected, _ = await communicator.connect()
    assert not connected


async def test_a_websocket_from_a_foreign_page_is_refused():
    communicator = WebsocketCommunicator(application, "/ws", headers=[(b"origin", b"http://evil.example.com")])
    connected, _ = await communicator.connect()
    assert not connected


async def test_an_idle_channel_stays_open_longer_than_the_socket_timeout_of_redis_py(redis_client, monkeypatch):
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add("idle", channel)
    waiting = asyncio.create_task(layer.receive(channel))
    loop = asyncio.get_running_loop()
    clock, jumps_s = loop.time, [0]
    monkeypatch.setattr(loop, "time", lambda: clock() + sum(jumps_s))
    for _ in range(30):  # half a minute goes by, for everything that the loop would end in time
        jumps_s.append(1)
        await asyncio.sleep(0.01)
    assert not waiting.done(), "an idle wait must not end by itself"
    await layer.group_send("idle", {"type": "hello"})
    assert await asyncio.wait_for(waiting, 20) == {"type": "hello"}
    await layer.flush()


@pytest.mark.parametrize(
    ("module", "absent"),
    [("batonic_site.asgi", "numba"), ("orderbook.book.reference", "django"), ("orderbook.book.reference", "numba")],
)
def test_processes_do_not_load_what_they_do_not_need(module, absent):
    code = f"import sys, {module}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0


def test_log_lines_cannot_be_forged_and_carry_their_fields(capfd):
    logs.configure({"level": "INFO"})
    logging.getLogger("batonic.test").warning("user %s", 'x"\n{"event": "forged"}', extra={"run_id": "r1"})
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    record = json.loads(lines[0])
    assert record["event"] == 'user x"\n{"event": "forged"}'
    assert (record["level"], record["logger"], record["run_id"]) == ("warning", "batonic.test", "r1")
    assert record["ts"].endswith("Z")


@pytest.mark.parametrize("terminal", [False, True])
def test_no_character_of_a_message_begins_a_line_or_moves_the_cursor(monkeypatch, terminal):
    out = io.StringIO()
    out.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", out)
    logs.configure({"level": "INFO"})
    bad = "".join(map(chr, (*range(32), *range(127, 160), 0x2028, 0x2029)))
    logging.getLogger("batonic.test").warning("said: %s", bad, extra={"symbol": f"C{bad}L", "status": {"x": bad}})
    [line] = out.getvalue().splitlines()
    assert "said: " in line
    assert terminal or (line.isascii() and json.loads(line)["symbol"] == f"C{bad}L")
    assert not {"\r", "\x85", "\x9b", "\u2028"} & set(line)


def test_log_lines_go_to_what_standard_error_is_when_they_come(monkeypatch):
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    logs.configure({"level": "INFO"})
    logging.getLogger("batonic.test").warning("one")
    monkeypatch.setattr(sys, "stderr", second)
    first.close()
    logging.getLogger("batonic.test").warning("two")
    assert json.loads(second.getvalue())["event"] == "two"


def test_an_exception_is_one_log_line(capfd):
    logs.configure({"level": "INFO"})
    try:
        raise ValueError("no such side")
    except ValueError:
        logging.getLogger("batonic.test").exception("failed")
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "ValueError: no such side" in json.loads(lines[0])["exception"]


@pytest.mark.parametrize(("error", "is_shown"), [(RequestAborted(), False), (ValueError("real"), True)])
def test_a_visitor_that_left_early_is_no_error(error, is_shown):
    record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "never retrieved", (), (type(error), error, None))
    assert logs.without_visitors_that_left()(record) is is_shown
