"""The bytes of a binary COPY, against what PostgreSQL documents of them."""

import struct
from collections.abc import Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker.book_names import BookName
from engine_worker.copy_rows import COLUMNS, copy_bytes
from engine_worker.named_rows import NamedRows
from engine_worker.tests.batches import batch
from orderbook.book.mbo import UNDEF_PRICE, BookKey

Value = str | int | None
SYMBOLS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=71)


def rows_in(data: bytes) -> Iterator[list[Value]]:
    """Read a binary COPY as its format is documented: a length before each field, -1 for null."""
    assert data[:19] == b"PGCOPY\n\xff\r\n\0" + bytes(8)
    at = 19
    while (fields := struct.unpack_from(">h", data, at)[0]) != -1:
        at += 2
        row: list[Value] = []
        for column in range(fields):
            (length,) = struct.unpack_from(">i", data, at)
            at += 4
            value = data[at : at + max(length, 0)]
            at += max(length, 0)
            if length == -1:
                row.append(None)
            else:
                row.append(value.decode() if column == 0 else int.from_bytes(value, signed=True))
        yield row
    assert at + 2 == len(data)


def expected(part: NamedRows) -> list[list[Value]]:
    found: list[list[Value]] = []
    for row in part.rows:
        sides: list[Value] = []
        for side in ("bid", "ask"):
            price = int(row[f"{side}_px"])
            sides += [None if price == UNDEF_PRICE else price, int(row[f"{side}_sz"]), int(row[f"{side}_ct"])]
        times = [int(row[field]) for field in ("ts_event", "sequence", "ts_recv")]
        found.append([part.names[row["book"]].symbol, *times, *sides])
    return found


@settings(max_examples=60)
@given(st.integers(0, 12), st.lists(SYMBOLS, min_size=1, max_size=4), st.randoms())
def test_every_row_is_in_the_bytes_with_its_symbol_its_numbers_and_its_nulls(count, symbols, rnd) -> None:
    names = tuple(BookName(symbol, 1, BookKey(1, number)) for number, symbol in enumerate(symbols))
    rows = batch(count, names=names).rows
    for row in rows:
        row["bid_px"] = rnd.choice((UNDEF_PRICE, -1, 0, 2**63 - 2, -(2**63)))
        row["ask_px"] = rnd.choice((UNDEF_PRICE, rnd.randint(-(10**12), 10**12)))
        row["ts_event"] = rnd.choice((0, 2**63 - 1))
        row["sequence"] = rnd.choice((0, 2**32 - 1))
        row["bid_sz"] = rnd.choice((0, 2**40))
    part = NamedRows(rows, names)
    assert list(rows_in(copy_bytes(part))) == expected(part)


def test_a_row_has_a_value_for_each_column() -> None:
    part = NamedRows(batch(1).rows, (BookName("CLX5", 1, BookKey(1, 7)),))
    (row,) = rows_in(copy_bytes(part))
    assert len(row) == len(COLUMNS)


def test_rows_that_lie_apart_in_memory_are_read_as_rows() -> None:
    part = NamedRows(batch(10).rows[::3], (BookName("CLX5", 1, BookKey(1, 7)),))
    assert not part.rows.flags.c_contiguous
    assert list(rows_in(copy_bytes(part))) == expected(part)
    assert np.array_equal(part.rows["sequence"], [1, 4, 7, 10])
