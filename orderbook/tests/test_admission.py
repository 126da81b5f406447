"""Who is let in to `/ws`, through the whole ASGI application, and who has to leave."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth import logout
from django.db import connections
from django.test import Client, RequestFactory
from django.utils import timezone

from batonic_site.asgi import application
from orderbook import signing_out, visitors
from orderbook.socket_protocol import Close
from orderbook.tests.test_hub import until
from replay.keys import create_key
from replay.models import ApiKey

pytestmark = pytest.mark.django_db(transaction=True)

OURS, FOREIGN = b"http://localhost", b"http://evil.example.com"

Open = Callable[..., Any]


@pytest.fixture
def cookie(reader: Any) -> str:
    client = Client()
    client.force_login(reader)
    return str(client.cookies["sessionid"].value)


@pytest.fixture
def key(reader: Any) -> tuple[ApiKey, str]:
    return create_key(reader, "bot", ["read"])


@pytest.fixture
async def open_socket(redis_client: redis.Redis) -> AsyncIterator[Open]:
    """Return a function that opens a socket with these headers: the open one, or None where it is refused."""
    opened: list[WebsocketCommunicator] = []

    async def open_(**headers: str | bytes) -> WebsocketCommunicator | None:
        pairs = [(name.encode(), text if isinstance(text, bytes) else text.encode()) for name, text in headers.items()]
        communicator = WebsocketCommunicator(application, "/ws", headers=pairs)
        if not (await communicator.connect(timeout=5))[0]:
            return None
        assert (await communicator.receive_json_from())["type"] == "hello"
        opened.append(communicator)
        return communicator

    yield open_
    for communicator in opened:
        await communicator.disconnect()
    await sync_to_async(connections.close_all)()  # the communicator keeps Channels from closing them


async def test_a_login_opens_our_own_pages_only(open_socket: Open, cookie: str) -> None:
    assert await open_socket(cookie=f"sessionid={cookie}", origin=OURS)
    assert not await open_socket(cookie=f"sessionid={cookie}", origin=FOREIGN)
    assert not await open_socket(cookie=f"sessionid={cookie}")
    assert not await open_socket(cookie="sessionid=nonsense", origin=OURS)


async def test_a_key_needs_no_origin_and_a_foreign_one_is_no_help(open_socket: Open, key: tuple[ApiKey, str]) -> None:
    header = f"Bearer {key[1]}"
    assert await open_socket(authorization=header)
    assert await open_socket(authorization=header, origin=OURS)
    assert not await open_socket(authorization=header, origin=FOREIGN)


async def test_a_wrong_key_is_not_mended_by_a_login(open_socket: Open, cookie: str) -> None:
    assert not await open_socket(authorization="Bearer db-wrong", cookie=f"sessionid={cookie}", origin=OURS)


async def closed(socket: WebsocketCommunicator) -> tuple[int, str]:
    output = await socket.receive_output(timeout=5)
    assert output["type"] == "websocket.close"
    return output["code"], output["reason"]


async def test_a_key_that_is_revoked_and_a_login_that_ends_are_closed_at_the_next_look(
    open_socket: Open, cookie: str, key: tuple[ApiKey, str], reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visitors, "RECHECK_S", 0.05)
    _, other = await sync_to_async(create_key)(reader, "other", ["read"])
    by_key, by_login, stays = [
        await open_socket(authorization=f"Bearer {key[1]}"),
        await open_socket(cookie=f"sessionid={cookie}", origin=OURS),
        await open_socket(authorization=f"Bearer {other}"),
    ]
    await sync_to_async(ApiKey.objects.filter(pk=key[0].pk).update)(revoked_at=timezone.now())
    assert await closed(by_key) == (Close.SIGNED_OUT, "the login or key has ended")
    reader.set_password("another-long-password")
    await sync_to_async(reader.save)()
    assert await closed(by_login) == (Close.SIGNED_OUT, "the login or key has ended")
    assert await stays.receive_nothing()


async def test_who_signs_out_is_out_at_once_and_with_this_login_only(
    open_socket: Open, cookie: str, reader: Any
) -> None:
    other = Client()
    await sync_to_async(other.force_login)(reader)
    here = await open_socket(cookie=f"sessionid={cookie}", origin=OURS)
    elsewhere = await open_socket(cookie=f"sessionid={other.cookies['sessionid'].value}", origin=OURS)
    layer = visitors.current_hub()._layer
    await until(lambda: f"asgi__group__{signing_out.SIGNED_OUT}" in layer._get_layer()._shards[0]._subscribed_to)
    await sync_to_async(_sign_out)(cookie)
    assert await closed(here) == (Close.SIGNED_OUT, "signed out")
    assert await elsewhere.receive_nothing()


def _sign_out(cookie: str) -> None:
    client = Client()
    client.cookies["sessionid"] = cookie
    assert client.post("/logout/").status_code == 302


def test_signing_out_works_without_redis(reader: Any, settings: Any, free_port: Any, monkeypatch: Any) -> None:
    async def refuse(session: str) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(signing_out, "_tell", refuse)
    request = RequestFactory().post("/logout/")
    client = Client()
    client.force_login(reader)
    request.session, request.user = client.session, reader
    logout(request)
    assert request.session.session_key is None
