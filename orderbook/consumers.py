"""The WebSocket `/ws`: one client from its handshake to its end. Floor 4.

Plain ASGI: a consumer of Channels would hop through a thread for each message that it gets, and a thousand clients
acknowledge some thousand messages a second. Admission is decided before accept: by origin in batonic_site.asgi, by
login or key here. Whoever is one too many is accepted and closed at once, because only so a browser is told why.

The books come from the hub; this follows requests, so that a slow or confused client costs the others nothing. What
comes in is taken at once, to the client's end, or not read at all: daphne's queue between the two has no bound.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from channels.db import database_sync_to_async
from django.conf import settings
from django.db import DatabaseError, InterfaceError

from history.queries import is_known
from orderbook.hub import current_hub
from orderbook.outlet import Outlet, Send, outlet_of
from orderbook.rate import Allowance
from orderbook.socket_counts import COUNTS
from orderbook.socket_protocol import (
    MAX_MESSAGE_BYTES,
    MESSAGES_PER_S,
    PUSH_MS_RANGE,
    Ack,
    Close,
    Request,
    Rest,
    SocketError,
    Watch,
    Wish,
    ack_of_rest,
    ack_of_wish,
    hello,
    read_request,
)
from orderbook.viewer import Subscription, Viewer
from orderbook.visitors import current_visitors
from replay.passes import websocket_pass

GONE: Final = 1006
"""What stands for a close without a code."""

LOOK_UP_WITHIN_S: Final = 5.0
"""The database's time to say whether it knows a symbol. Less than a ping may take: nothing is read meanwhile."""

Receive = Callable[[], Awaitable[dict[str, Any]]]


async def live_socket(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Serve one client: greet it, follow its requests, and forget it when it has gone."""
    await receive()  # that it wants to connect
    pass_ = await websocket_pass(scope)
    if pass_ is None or current_visitors().is_full:
        COUNTS.refused["forbidden" if pass_ is None else "too_many"] += 1
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    outlet = scope.get("outlet") or outlet_of(send)
    outlet.resume()
    viewer = Viewer(outlet, settings.WS_SLOW_CLOSE_S)
    visitors, address = current_visitors(), (scope.get("client") or ("",))[0]
    refusal = visitors.refusal(pass_, address)
    if refusal is not None:
        COUNTS.refused["forbidden" if refusal[0] == Close.SIGNED_OUT else "too_many"] += 1
        viewer.close(*refusal)
        with visitors.turning_away():
            await _until_gone(receive)
        return
    visitor = visitors.enter(pass_, address, viewer)
    code = GONE
    try:
        code = await Visit(viewer, outlet).follow(receive)
    finally:
        visitors.leave(visitor)
        COUNTS.closed[outlet.closed_with or code] += 1


async def _until_gone(receive: Receive) -> None:
    """Take what a client still sends, for nothing, until it has gone."""
    while (await receive())["type"] != "websocket.disconnect":
        pass


class Visit:
    """What one client asks for, one request after the other."""

    def __init__(self, viewer: Viewer, outlet: Outlet) -> None:
        self._viewer = viewer
        self._outlet = outlet
        self._hub = current_hub()
        self._now = asyncio.get_running_loop().time
        self._default = Wish(settings.SYMBOL, settings.DEPTH, max(settings.PUSH_MS, PUSH_MS_RANGE[0]))
        self._allowance = Allowance(MESSAGES_PER_S, self._now())

    async def follow(self, receive: Receive) -> int:
        """Follow requests until the client has gone; return the code of its close."""
        self._viewer.say(hello(self._default))
        try:
            while (message := await receive())["type"] != "websocket.disconnect":
                await self._take(message)
            return int(message.get("code") or GONE)
        finally:
            while self._viewer.subscriptions:  # each holds the viewer, which is to go now
                self._hub.leave(self._viewer.subscriptions.popitem()[1])

    async def _take(self, message: dict[str, Any]) -> None:
        """Follow one request, or say why not. What comes behind our own close counts for nothing."""
        if self._viewer.is_closed:
            return
        try:
            await self._follow_request(read_request(self._text(message), self._viewer.wishes, self._default))
        except SocketError as error:
            self._viewer.say(error.text())
            if error.close is not None:
                self._viewer.close(error.close, error.detail)

    def _text(self, message: dict[str, Any]) -> str:
        """Return the text of a message. Raises SocketError where it is none, too long, or comes too soon."""
        if not self._allowance.allows(self._now()):
            close = Close.TOO_MANY_MESSAGES if self._allowance.refused >= MESSAGES_PER_S else None
            raise SocketError("too_many_messages", f"a client sends at most {MESSAGES_PER_S} messages a second", close)
        text = message.get("text")
        if len(message.get("bytes") or b"" if text is None else text.encode()) > MAX_MESSAGE_BYTES:
            raise SocketError("too_big", f"a message has at most {MAX_MESSAGE_BYTES} bytes", Close.TOO_BIG)
        if text is None:
            raise SocketError("bad_json", "expected JSON text, found a binary message")
        return str(text)

    async def _follow_request(self, request: Request) -> None:
        viewer = self._viewer
        match request:
            case Ack(seq, symbol):
                viewer.acknowledge(seq, symbol)
            case Rest(symbols):
                for symbol in symbols:
                    self._hub.leave(viewer.subscriptions.pop(symbol))
                viewer.say(ack_of_rest(self._default, viewer.acks, viewer.wishes))
            case Watch(wish, instead_of, acks, is_anew):
                if wish.symbol not in viewer.subscriptions:
                    await self._expect_known(wish.symbol)
                before = viewer.subscriptions.pop(instead_of) if instead_of is not None else None
                if before is not None:
                    self._hub.leave(before)
                if acks is not None:
                    viewer.want_acks(acks)
                if before is not None and instead_of == wish.symbol and not is_anew:
                    subscription = before.changed(wish)
                else:
                    subscription = Subscription(viewer, self._hub.topic(wish.symbol), wish)
                viewer.subscriptions[wish.symbol] = subscription
                viewer.say(ack_of_wish(wish, viewer.acks, viewer.wishes))
                self._hub.follow(subscription)

    async def _expect_known(self, symbol: str) -> None:
        """Raise SocketError unless the symbol is the default one, has a book here, or is in the database."""
        if symbol == settings.SYMBOL or symbol in self._hub.topics:
            return
        self._outlet.pause()
        try:
            async with asyncio.timeout(LOOK_UP_WITHIN_S):
                known = await database_sync_to_async(is_known)(symbol)
        except (DatabaseError, InterfaceError, TimeoutError):
            raise SocketError("try_later", f"symbol: whether {symbol} is known cannot be looked up now") from None
        finally:
            self._outlet.resume()
        if not known:
            raise SocketError("unknown_symbol", f"symbol: {symbol} is not known here; GET /api/symbols lists all")
