"""The WebSocket `/ws`: who may come in, and what each client wants to see. Floor 4.

Admission is decided before accept: by origin in batonic_site.asgi, by login or key here. The books themselves
come from the hub; this consumer only follows requests, so that a slow or confused client costs the others
nothing.
"""

import asyncio
import logging

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from history.queries import is_known
from orderbook.hub import current_hub
from orderbook.socket_protocol import MAX_MESSAGE_BYTES, PUSH_MS_RANGE, SocketError, Wish, hello, read_request
from replay.auth import websocket_reader

log = logging.getLogger(__name__)

TOO_BIG = 1009


class BookConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels carries no types
    """One client."""

    channel_layer_alias = None  # the hub listens for all clients

    async def connect(self) -> None:
        """Accept readers and greet them; refuse everybody else before the connection stands."""
        self._task: asyncio.Task[None] | None = None
        if await websocket_reader(self.scope) is None:
            await self.close()
            return
        self._default = Wish(settings.SYMBOL, settings.DEPTH, max(settings.PUSH_MS, PUSH_MS_RANGE[0]))
        self._wish = Wish(None, self._default.depth, self._default.push_ms)
        await self.accept()
        await self.send(hello(self._default))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Follow one request, or say why not."""
        if len(text_data or bytes_data or "") > MAX_MESSAGE_BYTES:
            await self.send(SocketError("too_big", f"a message has at most {MAX_MESSAGE_BYTES} bytes").text())
            await self.close(TOO_BIG)
            return
        try:
            if text_data is None:
                raise SocketError("bad_json", "expected JSON text, found a binary message")
            verb, wish = read_request(text_data, self._wish, self._default)
            if verb == "watch" and wish.symbol != self._wish.symbol:
                await self._expect_known(str(wish.symbol))
        except SocketError as error:
            await self.send(error.text())
            return
        self._rest()
        self._wish = wish
        await self.send(wish.ack())
        if wish.symbol is not None:
            watch = current_hub().watch(wish.symbol, wish.depth, wish.push_ms, self.send)
            self._task = asyncio.create_task(watch)
            self._task.add_done_callback(_report)

    async def disconnect(self, code: int) -> None:
        """Stop sending."""
        self._rest()

    def _rest(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _expect_known(self, symbol: str) -> None:
        """Raise SocketError unless the symbol is the default one, has a book here, or is in the database."""
        if symbol == settings.SYMBOL or symbol in current_hub().topics:
            return
        if not await database_sync_to_async(is_known)(symbol):
            raise SocketError("unknown_symbol", f"symbol: {symbol} is not known here; GET /api/symbols lists all")


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a live view ended with an error", exc_info=error)
