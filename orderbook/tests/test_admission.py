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
    open_socket: Open, cookie: str, reader: Any, redis_client: redis.Redis
) -> None:
    other = Client()
    await sync_to_async(other.force_login)(reader)
    here = await open_socket(cookie=f"sessionid={cookie}", origin=OURS)
    elsewhere = await open_socket(cookie=f"sessionid={other.cookies['sessionid'].value}", origin=OURS)
    await until(lambda: redis_client.pubsub_numsub(f"asgi__group__{signing_out.SIGNED_OUT}")[0][1])
    await sync_to_async(_sign_out)(cookie)
    assert await closed(here) == (Close.SIGNED_OUT, "signed out")
    assert await elsewhere.receive_nothing()


async def test_who_has_signed_out_does_not_come_in_again_while_his_session_is_still_there(
    open_socket: Open, cookie: str, reader: Any, redis_client: redis.Redis
) -> None:
    here = await open_socket(cookie=f"sessionid={cookie}", origin=OURS)
    await until(lambda: redis_client.pubsub_numsub(f"asgi__group__{signing_out.SIGNED_OUT}")[0][1])
    await signing_out._tell(signing_out.digest_of(cookie))
    assert await closed(here) == (Close.SIGNED_OUT, "signed out")
    headers = [(b"cookie", f"sessionid={cookie}".encode()), (b"origin", OURS)]
    again = WebsocketCommunicator(application, "/ws", headers=headers)
    assert (await again.connect(timeout=5))[0]
    assert await closed(again) == (Close.SIGNED_OUT, "signed out")
    await again.disconnect()
    other = Client()
    await sync_to_async(other.force_login)(reader)
    assert await open_socket(cookie=f"sessionid={other.cookies['sessionid'].value}", origin=OURS)


async def test_a_look_that_fails_is_not_the_last(
    open_socket: Open, key: tuple[ApiKey, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = []

    def look(passes: Any) -> Any:
        looks.append(passes)
        if len(looks) == 1:
            raise ValueError("a row that is none")
        return passes

    monkeypatch.setattr(visitors, "RECHECK_S", 0.05)
    monkeypatch.setattr(visitors, "ended_passes", look)
    client = await open_socket(authorization=f"Bearer {key[1]}")
    assert await closed(client) == (Close.SIGNED_OUT, "the login or key has ended")
    assert "the look failed" in caplog.text


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
