"""Small recordings for tests, made by hand, and readers of the raw feed."""

import asyncio
import contextlib
from pathlib import Path

import numpy as np

from orderbook.book.market import make_market
from orderbook.book.mbo import MBO, MboArray, Side
from orderbook.tests.records import random_session
from replay.feed.csv_codec import CsvStreamDecoder
from replay.feed.dbn_codec import DbnStreamDecoder
from replay.feed.dbn_metadata import encode_metadata
from replay.feed.sources import Recording
from replay.streamer.messages import FixedPlace, Pace, StartCommand

SYMBOLS = {432669: "CLX5", 7001: "ESZ5"}
VENUE = "GLBX.MDP3"


def session(count: int = 3000, seed: int = 1, instruments: int = 2) -> MboArray:
    """Return interleaved random streams of up to two instruments, with events of several records."""
    records = random_session(seed, count)
    if instruments > 1:
        records["instrument_id"] = np.random.default_rng(seed).choice(list(SYMBOLS), count)
    return records


def recording(records: MboArray | None = None, symbols: dict[int, str] | None = None) -> Recording:
    """Return a recording that lies in memory."""
    chosen = session() if records is None else records
    return Recording(Path("made.dbn"), "dbn", VENUE, chosen, symbols or SYMBOLS)


def write_dbn(path: Path, records: MboArray) -> Path:
    """Write a DBN file that can be mapped."""
    path.write_bytes(encode_metadata(VENUE, int(records[0]["ts_event"]), SYMBOLS) + records.tobytes())
    return path


def command(
    pace: Pace = "max",
    *,
    replay_id: int = 1,
    loop: bool = False,
    max_msgs: int = -1,
    start_record: int | None = None,
    window: tuple[FixedPlace | None, FixedPlace | None] = (None, None),
    skip_idle_s: float | None = None,
    paused: bool = False,
) -> StartCommand:
    """Return an order to replay "made"."""
    return {
        "replay_id": replay_id,
        "generation": 1,
        "dataset": "made",
        "path": "made.dbn",
        "pace": pace,
        "skip_idle_s": skip_idle_s,
        "loop": loop,
        "max_msgs": max_msgs,
        "window_from": window[0],
        "window_to": window[1],
        "start_record": start_record,
        "published": 0,
        "loops": 0,
        "paused": paused,
    }


def decode(framing: str, data: bytes) -> tuple[MboArray, dict[int, str]]:
    """Return the records and symbols of a complete capture; any fault in it fails the test."""
    decoder = CsvStreamDecoder(1 << 20, strict=True) if framing == "csv" else DbnStreamDecoder(1 << 20)
    parts = [np.empty(0, MBO)]
    rest = memoryview(data)
    while rest:
        space = decoder.space()
        size = min(len(space), len(rest))
        space[:size] = rest[:size]
        parts.append(decoder.received(size).copy())
        rest = rest[size:]
    decoder.finish()
    assert decoder.rejected == {}
    return np.concatenate(parts), decoder.symbols


def books(records: MboArray) -> dict[tuple[int, int], tuple[object, ...]]:
    """Return every order and level of every book, and where each book stands, after these records."""
    market = make_market("reference")
    market.apply(records)
    return {
        tuple(key): (
            book.orders().tolist(),
            [book.levels(side).tolist() for side in (Side.BID, Side.ASK)],
            book.ts_event,
            book.sequence,
            book.at_event_end,
        )
        for key, book in market.books.items()
    }


class Reader:
    """A client of the raw feed that keeps everything it gets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.data = b""

    @classmethod
    async def connect(cls, port: int) -> "Reader":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def to_end(self) -> bytes:
        """Read until the streamer closes, and close too."""
        async with asyncio.timeout(10):
            self.data += await self._reader.read()
        await self.close()
        return self.data

    async def until(self, size: int) -> bytes:
        """Read until this many bytes have come in all."""
        async with asyncio.timeout(10):
            while len(self.data) < size:
                piece = await self._reader.read(1 << 16)
                assert piece, f"the streamer closed after {len(self.data)} bytes, {size} were expected"
                self.data += piece
        return self.data

    async def nothing_more(self, for_s: float = 0.1) -> bool:
        """Return whether the line stays open and silent."""
        try:
            async with asyncio.timeout(for_s):
                self.data += await self._reader.read(1)
        except TimeoutError:
            return True
        return False

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):  # cut off by the streamer: closed all the same
            await self.writer.wait_closed()
