"""Builders for codec tests: records with edge values, and bytes pushed through a decoder in pieces."""

from collections.abc import Iterable

import numpy as np
from hypothesis import strategies as st

from orderbook.book.mbo import MBO, MBO_LENGTH, MBO_RTYPE, UNDEF_PRICE, UNDEF_TIMESTAMP, Action, MboArray, Side
from replay.feed.stream import StreamDecoder

SYMBOLS = {432669: "CLX5", 7001: "ESZ5"}


def edge_records() -> MboArray:
    """Return records whose fields hold the smallest and largest values that a file can carry."""
    records = np.zeros(12, MBO)
    records["length"], records["rtype"] = MBO_LENGTH, MBO_RTYPE
    records["publisher_id"] = [1, 2**16 - 1] * 6
    records["instrument_id"] = [432669, 7001] * 6
    records["ts_event"] = 1_758_742_200_000_860_311 + np.arange(12, dtype=np.uint64) * np.uint64(86_400_000_000_007)
    records["ts_recv"] = records["ts_event"] + np.uint64(525_088)
    records["ts_recv"][1] = UNDEF_TIMESTAMP
    records["ts_event"][2] = 1
    records["order_id"] = [8_058_566_314_544, 2**64 - 1, 2**63, 0] * 3
    records["price"] = [64_830_000_000, -37_630_000_000, -1, 0, UNDEF_PRICE, UNDEF_PRICE - 1] * 2
    records["price"][11] = -(2**63) + 1
    records["size"] = [1, 2**32 - 1, 0] * 4
    records["flags"] = [0, 128, 130, 168, 255, 40] * 2
    records["channel_id"] = [0, 255, 26] * 4
    records["action"] = ([*Action] * 2)[:12]
    records["side"] = [*Side] * 4
    records["ts_in_delta"] = [0, 2**31 - 1, -(2**31), -5] * 3
    records["sequence"] = [0, 2**32 - 1, 94_225_061] * 4
    return records


def random_records(seed: int, count: int) -> MboArray:
    """Return plausible records of two instruments."""
    rng = np.random.default_rng(seed)
    records = np.zeros(count, MBO)
    records["length"], records["rtype"], records["publisher_id"] = MBO_LENGTH, MBO_RTYPE, 1
    records["instrument_id"] = rng.choice(list(SYMBOLS), count)
    records["ts_event"] = 1_758_742_200_000_000_000 + rng.integers(1, 10**9, count).cumsum()
    records["ts_recv"] = records["ts_event"] + np.uint64(500)
    records["order_id"] = rng.integers(0, 2**63, count)
    records["price"] = rng.integers(-(10**13), 10**13, count)
    records["size"] = rng.integers(0, 1000, count)
    records["flags"] = rng.choice([0, 128], count)
    records["action"] = rng.choice([*Action], count)
    records["side"] = rng.choice([*Side], count)
    records["ts_in_delta"] = rng.integers(-(10**5), 10**5, count)
    records["sequence"] = rng.integers(0, 2**32, count)
    return records


def push(decoder: StreamDecoder, data: bytes, sizes: Iterable[int] = ()) -> MboArray:
    """Return what a decoder makes of bytes that arrive in pieces of these sizes, the rest in large ones."""
    parts = [np.empty(0, MBO)]
    pieces = iter(sizes)
    done = 0
    while done < len(data):
        space = decoder.space()
        n = min(next(pieces, 1 << 16), len(space), len(data) - done)
        space[:n] = data[done : done + n]
        records = decoder.received(n)
        assert records.flags.writeable and records.flags.aligned and records.ctypes.data % 8 == 0
        parts.append(records.copy())
        done += n
    return np.concatenate(parts)


pieces = st.lists(st.integers(1, 400), max_size=60)
"""Sizes in which a stream arrives."""
