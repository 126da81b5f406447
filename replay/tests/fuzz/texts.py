"""Texts that people and programs send: prices, times, messages on /ws, commands to the streamer."""

import asyncio
import functools
import json
import logging
from decimal import Decimal
from pathlib import Path

from orderbook.book.mbo import UNDEF_PRICE
from orderbook.book.price import SCALE, SCALE_DIGITS, format_price, parse_price
from orderbook.book.timestamp import format_iso_us, format_ns, parse_ns
from orderbook.socket_protocol import (
    CHANNELS,
    DEPTH_RANGE,
    PUSH_MS_RANGE,
    Ack,
    Rest,
    SocketError,
    Watch,
    Wish,
    ack_of_wish,
    read_request,
)
from replay.feed.sources import Recording, SourceError
from replay.streamer.commands import CommandServer
from replay.streamer.server import Streamer


def fuzz_values(data: bytes) -> None:
    """A price or a time as text: refused in our words, or exact and written back."""
    text = data.decode("utf-8", "replace")
    try:
        price = parse_price(text)
    except ValueError as error:
        assert str(error).startswith("expected"), error
    else:
        assert -UNDEF_PRICE < price < UNDEF_PRICE
        assert Decimal(text) * SCALE == price
        for decimals in range(SCALE_DIGITS + 1):
            assert parse_price(format_price(price, decimals)) == price
    try:
        ns = parse_ns(text)
    except ValueError as error:
        assert str(error).startswith("expected"), error
    else:
        assert 0 <= ns < 2**63
        assert parse_ns(format_ns(ns)) == ns
        assert parse_ns(format_iso_us(ns)) == ns - ns % 1000


def fuzz_socket(data: bytes) -> None:
    """A client's message on /ws: a request in range, or a SocketError with a code."""
    text = data.decode("utf-8", "replace")
    one, other = Wish("CLX5", 50, 50), Wish("ESZ5", 5, 100, ("bbo", "trades"))
    for wishes in ({}, {one.symbol: one}, {one.symbol: one, other.symbol: other}):
        try:
            request = read_request(text, wishes, one)
        except SocketError as error:
            told = json.loads(error.text())
            assert told["type"] == "error" and told["code"] == error.code and told["detail"], told
            continue
        match request:
            case Rest(symbols):
                assert set(symbols) <= set(wishes)
            case Ack(seq):
                assert 0 <= seq < 2**63
            case Watch(wish, instead_of, acks):
                assert DEPTH_RANGE[0] <= wish.depth <= DEPTH_RANGE[1]
                assert PUSH_MS_RANGE[0] <= wish.push_ms <= PUSH_MS_RANGE[1]
                assert wish.channels and set(wish.channels) <= set(CHANNELS)
                assert instead_of is None or instead_of in wishes
                assert json.loads(ack_of_wish(wish, acks or 0, wishes))["symbol"] == wish.symbol


def fuzz_commands(data: bytes) -> None:
    """A command to the streamer: carried out or refused, and the streamer goes on."""
    loop, server, streamer = _streamer()
    logging.disable(logging.CRITICAL)  # it logs what it refuses
    try:
        answer = loop.run_until_complete(server.answer_to(data))
    finally:
        logging.disable(logging.NOTSET)
    assert ("status" in answer) != ("refused" in answer)
    json.dumps(answer)
    json.dumps(streamer.status())


@functools.cache
def _streamer() -> tuple[asyncio.AbstractEventLoop, CommandServer, Streamer]:
    """Return a streamer that has no file to open; its port and Redis are never touched."""

    def refuse(path: Path) -> Recording:
        raise SourceError(path, "", "a file", "none")

    streamer = Streamer(refuse, "csv", "127.0.0.1", 0)
    return asyncio.new_event_loop(), CommandServer("redis://127.0.0.1:1/0", streamer.handle, streamer.status), streamer
