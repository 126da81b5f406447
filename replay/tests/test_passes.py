"""Who may open a WebSocket, and until when."""

import asyncio
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from replay import passes
from replay.keys import create_key, find_key
from replay.models import ApiKey
from replay.tests.test_api import basic

pytestmark = pytest.mark.django_db(transaction=True)  # a thread hop closes the connection, and a transaction with it


@pytest.fixture
def vera() -> User:
    return User.objects.create_user("vera", password="a long enough password")


@pytest.fixture
def otto() -> User:
    return User.objects.create_user("otto", password="a long enough password")


def test_a_websocket_is_opened_by_keys_logins_and_where_it_is_public_by_anyone(vera: User, settings: Settings) -> None:
    (row, reading), (_, controlling) = create_key(vera, "r", ["read"]), create_key(vera, "c", ["control"])
    given = async_to_sync(passes.websocket_pass)

    def scope(header: bytes | None, who: object = None) -> dict[str, Any]:
        return {"headers": [] if header is None else [(b"authorization", header)]} | ({"user": who} if who else {})

    by_key = passes.Pass(vera.pk, key_id=row.pk)
    assert given(scope(None, vera)) == passes.Pass(vera.pk)
    assert given(scope(f"Bearer {reading}".encode())) == by_key
    assert given(scope(basic(reading)["authorization"].encode())) == by_key
    for header in (None, b"Bearer " + controlling.encode(), b"Bearer x", b"Basic !!!", b"Bearer \xff", b"Digest a"):
        assert given(scope(header)) is None
    settings.PUBLIC_READ = True
    assert given(scope(None)) == passes.Pass()


def test_beside_a_key_a_login_counts_for_nothing_and_the_password_of_a_proxy_is_no_key(vera: User) -> None:
    given = async_to_sync(passes.websocket_pass)
    _, feed_only = create_key(vera, "f", ["feed"])
    for header in (b"Bearer x", b"Bearer " + feed_only.encode(), basic(feed_only)["authorization"].encode()):
        assert given({"headers": [(b"authorization", header)], "user": vera}) is None
    proxy = basic("ops:secret")["authorization"].encode()
    assert given({"headers": [(b"authorization", proxy)], "user": vera}) == passes.Pass(vera.pk)


def test_a_key_is_looked_up_once_for_all_who_come_with_it_at_once(vera: User, monkeypatch: pytest.MonkeyPatch) -> None:
    row, reading = create_key(vera, "r", ["read"])
    scope = {"headers": [(b"authorization", b"Bearer " + reading.encode())]}
    asked: list[str] = []
    monkeypatch.setattr(passes, "find_key", lambda text: asked.append(text) or find_key(text))

    async def come(clients: int) -> list[passes.Pass | None]:
        return await asyncio.gather(*(passes.websocket_pass(scope) for _ in range(clients)))

    assert set(async_to_sync(come)(20)) == {passes.Pass(vera.pk, key_id=row.pk)}
    assert asked == [reading]
    async_to_sync(come)(20)
    assert asked == [reading]
    monkeypatch.setattr(passes, "KEY_TRUST_S", -1.0)
    monkeypatch.setattr(passes, "_trusted", {})
    async_to_sync(come)(1)
    async_to_sync(come)(1)
    assert len(asked) == 3


def test_passes_end_with_what_they_came_from(vera: User, otto: User) -> None:
    (lost, _), (kept, _) = create_key(vera, "lost", ["read"]), create_key(vera, "kept", ["read"])
    logins = {name: _login(user) for name, user in (("vera", vera), ("otto", otto), ("ended", vera))}
    keys = [passes.Pass(vera.pk, key_id=row.pk) for row in (lost, kept)]
    sessions = {name: passes.Pass(user.pk, logins[name]) for name, user in (("vera", vera), ("otto", otto))}
    ended = passes.Pass(vera.pk, logins["ended"])
    everybody = [*keys, *sessions.values(), ended, passes.Pass()]
    assert passes.ended_passes(everybody) == set()
    ApiKey.objects.filter(pk=lost.pk).update(revoked_at=timezone.now())
    Session.objects.filter(pk=logins["ended"]).update(expire_date=timezone.now())
    otto.set_password("another-long-password")
    otto.save()
    assert passes.ended_passes(everybody) == {keys[0], ended, sessions["otto"]}
    User.objects.filter(pk=vera.pk).update(is_active=False)
    assert passes.ended_passes(everybody) == set(everybody) - {passes.Pass()}


def _login(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value
