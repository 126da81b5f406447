"""A market simulator: realistic MBO sessions for tests, demonstrations and benchmarks. Floor 1.

The model is the zero-intelligence order flow of Cont, Stoikov and Talreja, "A stochastic model for order book
dynamics", Operations Research 58 (2010): limit orders arrive at a distance of i ticks from the other side's best
price with intensity k / i^alpha, aggressors arrive at a constant intensity, and each resting order is cancelled after
an exponential time that depends on its distance; k, alpha and the rates near the best prices are those the paper
estimates. Added to it, because a recorded session has them: sizes, modifications, partial cancels and remainders
that rest; an intensity that trades excite and that decays (clusters and bursts); a slow drift of the balance between
buyers and sellers; and the course of a day: an opening picture, a pre-open phase without matching, whose book is
crossed at times, an opening that uncrosses it, and a lull.

It is not a model of a matching engine's protocol: no icebergs, no stops, no implied orders.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt
import zstandard

from orderbook.book.mbo import MBO, Flags, MboArray
from replay import simulator_kernel as kernel
from replay.feed.dbn_metadata import encode_metadata

VENUE_DATASET: Final = "GLBX.MDP3"
PUBLISHER_ID: Final = 1
DEFAULT_START_NS: Final = int(datetime(2025, 10, 1, 13, 25, tzinfo=UTC).timestamp()) * 10**9
MIN_RECORDS: Final = 500
"""Of each symbol: room for the picture, the pre-open phase and the opening."""

MAX_RECORDS: Final = 1_000_000_000

_FIRST_SEQUENCE: Final = 1_000_000
_SNAPSHOT: Final = int(Flags.SNAPSHOT)

_RECORDS_PER_S: Final = 12.5  # of each symbol, in the mean: 45,000 an hour
_LULL_S: Final = 180
_GRID_TICKS: Final = 4096
_MAX_ORDERS: Final = 4096
_MAX_DISTANCE: Final = 40  # ticks from the other side's best price at which orders arrive
_CHUNK_RECORDS: Final = 65_536

# Cont, Stoikov and Talreja: arrivals k / i^alpha, aggressors, cancels at distance 1. Per unit of time.
_ARRIVAL_K, _ARRIVAL_ALPHA = 1.92, 0.52
_AGGRESSORS: Final = 0.94
_CANCELS: Final = 0.71
_PATIENCE_ALPHA: Final = 0.8  # how much longer the deeper orders stay
_UNIT_NS: Final = 6.0e9  # the paper's unit of time here; sets the mean of _RECORDS_PER_S

Progress = Callable[[int], Any]
"""Told how many more records were made."""


class Product(NamedTuple):
    """What a symbol begins with, and how its prices look."""

    root: str
    tick: int
    price: int
    channel_id: int


_PRODUCTS: Final = (
    Product("CL", 10_000_000, 64_830_000_000, 26),
    Product("ES", 250_000_000, 6_702_250_000_000, 12),
    Product("NQ", 250_000_000, 24_805_500_000_000, 12),
    Product("GC", 100_000_000, 3_790_300_000_000, 30),
    Product("NG", 1_000_000, 2_851_000_000, 32),
    Product("ZN", 15_625_000, 112_515_625_000, 14),
)
_OTHER: Final = Product("", 10_000_000, 100_000_000_000, 40)


def product_of(symbol: str) -> Product:
    """Return the product that a symbol belongs to; an unknown one trades at 100 in steps of 0.01."""
    return next((product for product in _PRODUCTS if symbol.startswith(product.root)), _OTHER)


def instrument_ids(symbols: list[str]) -> dict[int, str]:
    """Give each symbol an id that depends on the symbol alone, unless two want the same one."""
    ids: dict[int, str] = {}
    for symbol in symbols:
        id_ = 100_000 + crc32(symbol.encode()) % 900_000
        while id_ in ids:
            id_ += 1
        ids[id_] = symbol
    return ids


def simulate(
    records: int, symbols: list[str], seed: int, start_ns: int = DEFAULT_START_NS, progress: Progress = lambda n: None
) -> MboArray:
    """Return a session of exactly so many records, its symbols interleaved by time; each symbol ends an event.

    The same arguments give the same bytes. Raises ValueError for too few or too many records. Cost: O(records), a
    million in about a second; 112 bytes of memory each.
    """
    if not symbols or len(set(symbols)) < len(symbols):
        raise ValueError(f"expected at least one symbol, each once, found {symbols}")
    if not all(symbol.isascii() and symbol.isprintable() for symbol in symbols):
        raise ValueError(f"expected symbols of printable ASCII characters, found {symbols}")
    if records > MAX_RECORDS:
        raise ValueError(f"expected at most {MAX_RECORDS} records, found {records}")
    if records < MIN_RECORDS * len(symbols):
        raise ValueError(f"expected at least {MIN_RECORDS} records for each symbol, found {records // len(symbols)}")
    share, rest = divmod(records, len(symbols))
    parts = [
        _one_instrument(share + (n < rest), share, id_, symbol, seed, start_ns, progress)
        for n, (id_, symbol) in enumerate(instrument_ids(symbols).items())
    ]
    if len(parts) == 1:
        return parts[0]
    merged = np.concatenate([part.view(np.uint8).reshape(-1, MBO.itemsize) for part in parts])
    order = np.argsort(np.concatenate([part["ts_recv"] for part in parts]), kind="stable")
    session = merged[order].reshape(-1).view(MBO)
    channels = Counter(product_of(symbol).channel_id for symbol in symbols)
    for channel_id in (channel_id for channel_id, count in channels.items() if count > 1):
        _number_packets(session, (session["channel_id"] == channel_id) & (session["flags"] & _SNAPSHOT == 0))
    return session


def _number_packets(session: MboArray, of_channel: npt.NDArray[np.bool_]) -> None:
    """Give the packets of one channel one sequence, as a venue does that sends several instruments over it."""
    places = np.flatnonzero(of_channel)
    packets = session["instrument_id"][places].astype(np.int64) << 32 | session["sequence"][places]
    session["sequence"][places] = _FIRST_SEQUENCE + np.cumsum(np.diff(packets, prepend=0) != 0)


def write_session(path: Path, records: MboArray, symbols: dict[int, str]) -> None:
    """Write a session as DBN, compressed when the name ends with .zst. The file appears complete or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        with _writer(part, compressed=path.name.endswith(".zst")) as file:
            file.write(encode_metadata(VENUE_DATASET, _start(records), symbols, int(records[-1]["ts_event"])))
            file.write(records.view(np.uint8).data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _start(records: MboArray) -> int:
    return int(records["ts_recv"].min())


@contextmanager
def _writer(path: Path, compressed: bool) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        if not compressed:
            yield file
            return
        with zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(file, closefd=False) as writer:
            yield writer


def _one_instrument(
    records: int, share: int, instrument_id: int, symbol: str, seed: int, start_ns: int, progress: Progress
) -> MboArray:
    market = _new_market(records, share, instrument_id, symbol, seed, start_ns)
    kernel.prepare(market, min(300, records // 10))
    done = 0
    while done < records:
        reached = kernel.run(market, min(done + _CHUNK_RECORDS, records))
        progress(reached - done)
        done = reached
    return market.records


def _new_market(records: int, share: int, instrument_id: int, symbol: str, seed: int, start_ns: int) -> kernel.Market:
    product = product_of(symbol)
    expected_s = share / _RECORDS_PER_S
    distances = np.arange(1, _MAX_DISTANCE + 1)
    arrivals = np.cumsum(_ARRIVAL_K / distances**_ARRIVAL_ALPHA)
    patience = np.arange(_GRID_TICKS, dtype=np.float64).clip(1) ** -_PATIENCE_ALPHA
    patience[2 * _MAX_DISTANCE :] = 0.5  # the market went away

    ints = np.zeros(kernel.INT_SLOTS, np.int64)
    ints[kernel.RANDOM] = crc32(f"{seed} {symbol}".encode()) << 20
    ints[kernel.CLOCK] = ints[kernel.RECEIVED] = start_ns
    ints[kernel.SEQUENCE] = _FIRST_SEQUENCE
    ints[kernel.NEXT_ID] = 8_058_000_000_000 + instrument_id * 10**7
    ints[kernel.WANTED] = records
    # By the clock and not by the record, so that all symbols of a session open and rest together.
    ints[kernel.OPEN_AT] = start_ns + int(min(max(0.05 * expected_s, 8), 60)) * 10**9
    ints[kernel.LULL_FROM] = start_ns + int(0.45 * expected_s) * 10**9
    ints[kernel.LULL_TO] = ints[kernel.LULL_FROM] + _LULL_S * 10**9
    ints[kernel.CENTRE] = _GRID_TICKS // 2
    ints[kernel.TICK] = product.tick
    ints[kernel.INSTRUMENT_ID], ints[kernel.PUBLISHER_ID] = instrument_id, PUBLISHER_ID
    ints[kernel.CHANNEL_ID] = product.channel_id
    ints[kernel.CROSSING_MOST] = 16
    ints[kernel.BASE_PRICE] = product.price - _GRID_TICKS // 2 * product.tick

    floats = np.zeros(kernel.FLOAT_SLOTS)
    floats[kernel.LIMIT_RATE] = 2 * arrivals[-1]
    floats[kernel.MARKET_RATE] = 2 * _AGGRESSORS
    floats[kernel.CANCEL_RATE] = _CANCELS
    floats[kernel.UNIT_NS] = _UNIT_NS

    orders = np.zeros(_MAX_ORDERS, kernel.ORDER)
    orders["next"] = np.arange(1, _MAX_ORDERS + 1)
    orders["next"][-1] = kernel.NOBODY
    return kernel.Market(
        ints=ints,
        floats=floats,
        heads=np.full((2, _GRID_TICKS), kernel.NOBODY, np.int64),
        tails=np.full((2, _GRID_TICKS), kernel.NOBODY, np.int64),
        best=np.array([-1, _GRID_TICKS], np.int64),
        resting=np.zeros(2, np.int64),
        orders=orders,
        live=np.zeros(_MAX_ORDERS, np.int64),
        arrivals=arrivals,
        patience=patience,
        fills=np.zeros((_MAX_ORDERS, 2), np.int64),
        records=np.zeros(records, MBO),
    )
