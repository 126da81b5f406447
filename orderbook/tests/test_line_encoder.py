"""The compiled lines of the feed file against the readable ones."""

import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook.book import json_kernel
from orderbook.book.encoding import LineEncoder, book_json
from orderbook.book.mbo import UNDEF_PRICE
from orderbook.book.price import SCALE, SCALE_DIGITS
from orderbook.book.snapshot import BookSnapshot, BookState
from orderbook.book.snapshot_tape import SNAPSHOT_ROW
from orderbook.book.timestamp import NS_PER_S

TS = 1_758_742_200_001_385_399
LEAST, MOST = -(2**63), 2**63 - 1


class Name(NamedTuple):
    symbol: str
    tick: int


class Batch(NamedTuple):
    run_id: str
    rows: np.ndarray
    bids: np.ndarray
    asks: np.ndarray
    seqs: np.ndarray
    names: tuple[Name, ...]

    def snapshots(self) -> list[BookSnapshot]:
        """Return them one by one, as book_json takes them."""
        found = []
        for row, bids, asks, seq in zip(self.rows, self.bids, self.asks, self.seqs, strict=True):
            name = self.names[row["book"]]
            numbers = (int(row[field]) for field in ("records", "ts_event", "ts_recv", "sequence"))
            levels = (bids[: row["bids"]], asks[: row["asks"]])
            found.append(BookSnapshot(name.symbol, self.run_id, int(seq), *numbers, name.tick, *levels))
        return found


Side = list[tuple[int, int, int]]


def batch_of(*books: tuple[Side, Side], depth: int = 4, run_id: str = "r-1", **fields: Any) -> Batch:
    """Return one snapshot for each pair of sides; ``fields`` are columns of the rows, ``names`` those of the books."""
    names = fields.pop("names", (Name("CLX5", SCALE // 100),))
    batch = Batch(
        run_id,
        np.zeros(len(books), SNAPSHOT_ROW),
        *(np.full((len(books), depth, 3), 77, np.int64) for _ in "ba"),  # behind the levels stands anything
        seqs=np.array(fields.pop("seqs", range(1, len(books) + 1)), np.int64),
        names=names,
    )
    for name, values in ({"ts_event": TS, "ts_recv": TS + 1, "sequence": 9, "records": 1000} | fields).items():
        batch.rows[name] = values
    for n, sides in enumerate(books):
        for name, side in zip(("bids", "asks"), sides, strict=True):
            batch.rows[name][n] = len(side)
            getattr(batch, name)[n, : len(side)] = np.array(side, np.int64).reshape(-1, 3)
    return batch


def readable(*batches: Batch, depth: int = 4) -> str:
    return "".join(f"{book_json(snapshot, depth)}\n" for batch in batches for snapshot in batch.snapshots())


def compiled(*batches: Batch, depth: int = 4, buffer_bytes: int = 1 << 16) -> str:
    return b"".join(map(bytes, LineEncoder(depth, buffer_bytes).encode(batches))).decode()


PRICES = st.one_of(
    st.integers(LEAST, MOST),
    st.sampled_from([LEAST, LEAST + 1, -SCALE, -1, 0, 1, 9, 10, SCALE - 1, SCALE, 10 * SCALE, UNDEF_PRICE]),
    st.integers(-(10**6), 10**6).map(lambda ticks: ticks * 10_000_000),
    st.integers(-(10**12), 10**12),
)
NUMBERS = st.one_of(st.integers(0, 300), st.integers(LEAST, MOST))
SIDES = st.lists(st.tuples(PRICES, NUMBERS, NUMBERS), max_size=4)
TICKS = st.one_of(st.sampled_from([0, 1, 25, 10_000_000, 250_000_000, SCALE, 100 * SCALE, MOST]), st.integers(1, MOST))
TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(['"', "\\", "Ä\n", "</script>", "\ud800", "😀", "ES\0"]))
TIMES = st.one_of(
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 1, NS_PER_S - 1, NS_PER_S, TS, 2**63, 2**64 - 1]),
    st.sampled_from(["1972-02-29", "1999-12-31", "2000-02-29", "2000-03-01", "2100-02-28", "2100-03-01", "2400-02-29"])
    .map(lambda day: int(np.datetime64(day, "s").astype(np.int64)) * NS_PER_S)
    .flatmap(lambda ns: st.integers(ns - 1, ns + 1)),
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    names = tuple(draw(st.lists(st.builds(Name, TEXTS, TICKS), min_size=1, max_size=3)))
    books = draw(st.lists(st.tuples(SIDES, SIDES), max_size=5))
    columns = {"ts_event": TIMES, "ts_recv": TIMES, "records": NUMBERS, "seqs": NUMBERS}
    columns |= {"sequence": st.integers(0, 2**32 - 1), "book": st.integers(0, len(names) - 1)}
    size = {"min_size": len(books), "max_size": len(books)}
    fields = {name: draw(st.lists(values, **size)) for name, values in columns.items()}
    return batch_of(*books, run_id=draw(TEXTS), names=names, **fields)


@settings(max_examples=300, deadline=None)
@given(st.lists(batches(), max_size=3), st.sampled_from([1, 700, 1500, 1 << 16]), st.sampled_from([1, 3, 4, 200]))
def test_the_lines_are_those_of_the_readable_encoder(found: list[Batch], buffer_bytes: int, depth: int) -> None:
    assert compiled(*found, depth=depth, buffer_bytes=buffer_bytes) == readable(*found, depth=depth)


@pytest.mark.parametrize("decimals", range(SCALE_DIGITS + 1))
def test_a_price_is_written_with_the_decimals_of_the_tick_and_with_more_only_where_fewer_would_lie(
    decimals: int,
) -> None:
    units = [sign * (64 * SCALE + 10**digits) for digits in range(SCALE_DIGITS + 1) for sign in (1, -1)]
    levels = [(units[n], 1, 1) for n in range(len(units))]
    batch = batch_of((levels, []), depth=20, names=(Name("X", 10 ** (SCALE_DIGITS - decimals)),))
    assert compiled(batch, depth=20) == readable(batch, depth=20)


def test_the_state_of_the_market_is_that_of_the_best_prices() -> None:
    bid = [(64, 1, 1), (63, 1, 1)]
    asks: list[Side] = [[(65, 1, 1)], [(64, 1, 1)], [(63, 1, 1)], []]
    batch = batch_of(*((bid, ask) for ask in asks), ([], bid), ([], []))
    states = [snapshot.state for snapshot in batch.snapshots()]
    assert states == ["ok", "locked", "crossed", "one_sided", "one_sided", "empty"]
    assert compiled(batch) == readable(batch)


def test_a_book_whose_grid_is_not_known_is_written_with_all_nine_decimals() -> None:
    line = compiled(batch_of(([(64_830_000_000, 1, 1)], []), names=(Name("X", 0),)))
    assert '"decimals":9,"tick":0.000000001,"depth":4,"bids":[[64.830000000,1,1]],"asks":[]}\n' in line


@pytest.mark.parametrize("levels", [0, 1, 200])
@pytest.mark.parametrize("value", [LEAST, MOST])
def test_the_widest_line_fits_the_room_that_it_is_given(levels: int, value: int) -> None:
    side = [(value, value, value)] * levels
    times = {"ts_event": 2**64 - 1, "ts_recv": 2**64 - 1}
    batch = batch_of((side, side), depth=200, names=(Name('"' * 99, 1),), run_id="\0" * 99, sequence=2**32 - 1, **times)
    batch.seqs[:] = batch.rows["records"][:] = value
    encoder = LineEncoder(200)
    line = b"".join(map(bytes, encoder.encode([batch])))
    assert line.decode() == readable(batch, depth=200)
    assert len(line) <= encoder._line_bytes(levels)


def test_pieces_are_whole_lines_of_at_most_the_buffer_and_small_batches_share_one() -> None:
    one = batch_of(*[([(64_830_000_000, 5, 4)] * 4, [])] * 7)
    line_bytes = len(readable(one)) // 7
    small = [len(piece) for piece in LineEncoder(4, 3 * line_bytes + 900).encode([one, one])]
    assert sum(small) == 14 * line_bytes
    assert all(size % line_bytes == 0 and size <= 3 * line_bytes + 900 for size in small)
    assert 4 <= len(small) < 14
    assert [len(piece) for piece in LineEncoder(4).encode([one] * 5)] == [35 * line_bytes]


def test_a_book_may_get_a_finer_tick_and_another_run_its_own_name() -> None:
    sides = ([(64_835_000_000, 5, 4)], [(64_840_000_000, 5, 4)])
    parts = [
        batch_of(sides, run_id=run_id, names=(Name("ES", SCALE), Name(symbol, tick)), book=1)
        for run_id, symbol, tick in (("a", "CL", 0), ("a", "CL", SCALE // 100), ("b", "CL", 1), ("b", "NG", 1))
    ]
    assert compiled(*parts) == readable(*parts)


def test_arrays_that_may_not_be_written_to_or_are_cut_out_of_others_are_taken_as_they_are() -> None:
    whole = batch_of(*[([(n * SCALE, n, 1)], [(2 * n * SCALE, 1, n)]) for n in range(9)])
    for array in whole[1:5]:
        array.flags.writeable = False
    cut = Batch(
        whole.run_id, whole.rows[1::2], whole.bids[1::2, :2], whole.asks[1::2, :2], whole.seqs[1::2], whole.names
    )
    assert compiled(cut) == readable(cut)
    assert len(cut.rows) == 4


def test_a_book_without_a_name_is_refused_before_anything_is_written() -> None:
    encoder = LineEncoder(4)
    with pytest.raises(ValueError, match="expected the name of book 3, found 1 names"):
        list(encoder.encode([batch_of(([], []), book=3)]))


def test_the_codes_of_the_kernel_are_the_public_ones() -> None:
    states = [json_kernel.OK, json_kernel.LOCKED, json_kernel.CROSSED, json_kernel.ONE_SIDED, json_kernel.EMPTY]
    assert dict(zip(BookState.__members__, states, strict=True)) == {
        name: getattr(json_kernel, name) for name in BookState.__members__
    }
    assert states == list(range(json_kernel.END + 1, json_kernel.BOOKS))
    assert json_kernel.SCALE_DIGITS == SCALE_DIGITS
    assert json_kernel.NS == NS_PER_S == SCALE


def test_the_kernel_is_compiled_once() -> None:
    compiled(batch_of(([], [])))
    assert len(json_kernel.encode.signatures) == 1


def test_the_readable_encoder_loads_no_numba() -> None:
    program = "import orderbook.book.encoding, sys; print('numba' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout == "False\n"
