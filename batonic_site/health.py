"""Is it alive, is it ready, and is each part of the pipeline at work. Floor 5.

/livez and /readyz are for supervisors: public, and they tell nothing. /api/health is for people and tells everything.
"""

import http.client
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import psycopg
import redis
from celery import current_app
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from kombu.exceptions import KombuError
from ninja import Router, Schema

from batonic_site.services.valkey import connect
from orderbook.engines import Engines, engine_statuses
from orderbook.live import DEFAULT_ENGINE, ENGINE_STATUS_KEY, EngineStatus, blank_status
from orderbook.socket_counts import socket_counts
from replay.auth import READ_AUTH
from replay.schedule import TICK_KEY, TICK_TTL_S
from replay.streamer.remote import StreamerRemote, StreamerUnreachable

router = Router()

WORKER_ANSWERS_WITHIN_S: Final = 1.0
ANY_HOST: Final = ("0.0.0.0", "::")  # noqa: S104  (compared with, not bound)


class EngineHealth(Schema):
    """What an engine last said of itself; see orderbook.live.EngineStatus. All zero for one that is gone."""

    name: str
    ok: bool
    reason: str
    state: str
    records: int
    records_per_s: int
    snapshots: int
    snapshots_stored: int
    queue_items: int
    queue_bytes: int
    queue_capacity_bytes: int
    spilled: int
    on_disk: int
    dropped: int
    lag_records: int
    lag_ms: float
    degraded: dict[str, str]


class Health(Schema):
    """spec.md's fields, why ``ok`` is false, and every engine that lives or did so lately."""

    ok: bool
    streamer_control_ok: bool
    feed_ok: bool
    feed_path: str
    feed_size_bytes: int
    reasons: list[str]
    engines: list[EngineHealth]
    sockets: dict[str, Any]
    """WebSockets of the web process that answers; see orderbook.socket_counts."""


@login_not_required
def livez(request: HttpRequest) -> JsonResponse:
    """Answer that the process runs; look at nothing else."""
    return JsonResponse({"ok": True})


@login_not_required
def readyz(request: HttpRequest) -> JsonResponse:
    """Answer 200 when requests can be served, else 503 with the name of what is missing."""
    missing = [name for name, check in _SERVICES.items() if failure(check)]
    return JsonResponse({"ok": not missing, "missing": missing}, status=503 if missing else 200)


@router.get("/health", auth=READ_AUTH, response=Health)
def health(request: HttpRequest) -> dict[str, Any]:
    """Tell which part of the pipeline works."""
    faults = {name: failure(check) for name, check in _SERVICES.items()}
    for name, check in _PROCESSES.items():  # what they say comes through Redis, and each would wait for it anew
        faults[name] = "unknown without Redis" if faults["redis"] else failure(check)
    known = {} if faults["redis"] else _engines()
    engine_faults = {_called(name): engine_fault(status) for name, status in known.items()}
    if not known:
        engine_faults["engine"] = "unknown without Redis" if faults["redis"] else engine_fault(None)
    reasons = [f"{name}: {why}" for name, why in (faults | engine_faults).items() if why]
    return {
        "ok": not reasons,
        "streamer_control_ok": not faults["streamer"] and not faults["worker"],
        "feed_ok": not any(engine_faults.values()),
        "feed_path": str(settings.FEED_PATH),
        "feed_size_bytes": _size(settings.FEED_PATH),
        "reasons": reasons,
        "engines": [_engine_health(name, status) for name, status in known.items()],
        "sockets": socket_counts(),
    }


@router.get("/engines", auth=READ_AUTH, response=list[EngineHealth])
def engines(request: HttpRequest) -> list[dict[str, Any]]:
    """Tell of every engine: the part of the health that costs one question to Redis. None where Redis is away."""
    return [_engine_health(name, status) for name, status in _engines().items()]


def engine_status(client: "redis.Redis", name: str = "") -> EngineStatus | None:
    """Return what an engine last said of itself, ours without a name; None when it has been silent for some seconds."""
    text = client.get(ENGINE_STATUS_KEY.format(name=name or settings.ENGINE_NAME))
    if text is None:
        return None
    status: EngineStatus = json.loads(text)
    return status


def engine_fault(status: EngineStatus | None) -> str:
    """Return what an engine suffers from; empty when it is well."""
    if status is None:
        return "no heartbeat; is `manage.py runengine` running?"
    faults = [f"{part} degraded: {why}" for part, why in status["degraded"].items()]
    if status["state"] == "connecting" and "feed" not in status["degraded"]:  # which says why
        faults.insert(0, f"not connected to the feed {settings.FEED_HOST}:{settings.FEED_PORT}")
    return "; ".join(faults)


class _Fault(Exception):
    """A part that answers, and is not well."""


def failure(check: Callable[[], None]) -> str:
    """Return why a check fails; empty when it does not."""
    try:
        check()
    except (_Fault, DatabaseError, psycopg.Error, redis.RedisError, StreamerUnreachable, OSError) as error:
        return str(error).strip() or type(error).__name__
    return ""


def _check_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _check_redis() -> None:
    with connect(settings.REDIS_URL) as client:
        client.ping()


def check_web() -> None:
    """Ask the web process of this machine, by a name that it accepts."""
    host = "127.0.0.1" if settings.WEB_HOST in ANY_HOST else settings.WEB_HOST
    with closing(http.client.HTTPConnection(host, settings.WEB_PORT, timeout=3)) as connection:
        connection.request("GET", "/readyz", headers={"Host": settings.ALLOWED_HOSTS[0].lstrip("*.") or "localhost"})
        response = connection.getresponse()
        if response.status != 200:
            raise _Fault(f"{response.status} {response.read(200).decode(errors='replace')}")


def check_streamer() -> None:
    with closing(StreamerRemote(settings.REDIS_URL)) as remote:
        status = remote.status()
    if status is None:
        raise _Fault("no heartbeat; is `manage.py runstreamer` running?")


def check_worker() -> None:
    """Ask for the first worker that answers; a healthy one takes some milliseconds."""
    try:
        answers = _ping()
    except KombuError:  # a pooled connection may be older than the Redis at its other end: the next one is not
        try:
            answers = _ping()
        except KombuError as error:
            raise _Fault(str(error)) from error
    if not answers:
        raise _Fault(f"no Celery worker answered within {WORKER_ANSWERS_WITHIN_S:g} s")


def _ping() -> list[Any]:
    answers: list[Any] = current_app.control.ping(timeout=WORKER_ANSWERS_WITHIN_S, limit=1)
    return answers


def check_beat() -> None:
    """Look whether the clock of scheduled replays is heard; it ticks through the worker."""
    with connect(settings.REDIS_URL) as client:
        if not client.exists(TICK_KEY):
            raise _Fault(f"no tick within {TICK_TTL_S} s; are `celery beat` and a worker running?")


def check_engine() -> None:
    """Look at the engine of this environment."""
    with connect(settings.REDIS_URL) as client:
        if why := engine_fault(engine_status(client)):
            raise _Fault(why)


def _engines() -> Engines:
    """Return every engine; none where Redis is away."""
    try:
        with connect(settings.REDIS_URL) as client:
            return engine_statuses(client)
    except redis.RedisError:
        return {}


def _engine_health(name: str, status: EngineStatus | None) -> dict[str, Any]:
    reason = engine_fault(status)
    return {**(status or blank_status(name) | {"state": "gone"}), "ok": not reason, "reason": reason}


def _called(name: str) -> str:
    """Return what an engine is called in the reasons."""
    return "engine" if name == DEFAULT_ENGINE else f"engine {name}"


_SERVICES: dict[str, Callable[[], None]] = {"database": _check_database, "redis": _check_redis}
_PROCESSES: dict[str, Callable[[], None]] = {
    "streamer": check_streamer,
    "worker": check_worker,
    "beat": check_beat,
}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
