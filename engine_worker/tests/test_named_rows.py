"""Snapshots without their levels: joined, packed, and told apart by what a table can hold."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_worker.book_names import BookName
from engine_worker.named_rows import NamedRows, joined, packed, storable, unpacked
from engine_worker.tests.batches import NAMES, TICK, batch
from orderbook.book.mbo import BookKey
from orderbook.book.snapshot_tape import SNAPSHOT_ROW


def named(count: int, *symbols: str, first: int = 1) -> NamedRows:
    names = tuple(BookName(symbol, TICK, BookKey(1, number)) for number, symbol in enumerate(symbols))
    found = batch(count, first=first, names=names or NAMES)
    return NamedRows(found.rows, found.names)


def told(part: NamedRows) -> list[tuple[Any, ...]]:
    """Return what rows say, whatever their books are numbered."""
    fields = [name for name in SNAPSHOT_ROW.names or () if name != "book"]
    rows = zip(*(part.rows[name].tolist() for name in fields), strict=True)
    return [(part.names[book], *row) for book, row in zip(part.rows["book"].tolist(), rows, strict=True)]


@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.sampled_from("ABCD"), min_size=1, unique=True)), min_size=1))
def test_joined_rows_say_what_each_part_said_and_name_their_own_books_only(parts: list[tuple[int, list[str]]]) -> None:
    given_parts = [named(count, *symbols, first=number * 10) for number, (count, symbols) in enumerate(parts)]
    before = [part.rows.copy() for part in given_parts]
    whole = joined(given_parts)
    assert told(whole) == [row for part in given_parts for row in told(part)]
    assert set(whole.names) == {row[0] for row in told(whole)}
    assert len(set(whole.names)) == len(whole.names)
    for part, rows in zip(given_parts, before, strict=True):
        assert (part.rows == rows).all()


def test_parts_with_the_same_list_of_names_are_joined_at_once() -> None:
    part = named(6, "A", "B", "C")
    whole = joined([NamedRows(part.rows[:3], part.names), NamedRows(part.rows[3:], part.names)])
    assert told(whole) == told(part)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_packed_rows_come_back_as_they_were(count: int) -> None:
    part = named(count, "CLX5", 'quote"d ü')
    back = unpacked(memoryview(b"".join(packed(part))))
    assert back.rows.dtype == SNAPSHOT_ROW
    assert back.rows.tobytes() == part.rows.tobytes()
    assert tuple(back.names) == part.names
    assert told(back) == told(part)


def test_rows_of_another_version_are_read_by_the_names_of_their_fields() -> None:
    part = named(3, "CLX5")
    other = np.dtype([("ts_event", "<u8"), ("gone", "<i4"), ("bid_px", "<i8"), ("book", "<u4")])
    rows = np.zeros(3, other)
    for field in ("ts_event", "bid_px", "book"):
        rows[field] = part.rows[field]
    head = json.dumps({"fields": other.descr, "names": part.names}).encode()
    back = unpacked(memoryview(len(head).to_bytes(4, "little") + head + rows.tobytes()))
    assert back.rows.dtype == SNAPSHOT_ROW
    assert back.rows["ts_event"].tolist() == part.rows["ts_event"].tolist()
    assert back.rows["bid_px"].tolist() == part.rows["bid_px"].tolist()
    assert back.rows["ask_px"].tolist() == [0, 0, 0]


def test_what_no_row_of_the_table_can_hold_is_told_apart() -> None:
    part = named(10, "A", "B\0", "C" * 71, "D" * 72, "E\udc80")
    part.rows["ts_event"][4] = 2**63
    part.rows["ts_recv"][6] = 2**64 - 1
    part.rows["ts_recv"][2] = 2**63 - 1
    books = part.rows["book"].tolist()
    expected = [book in (0, 2) and index not in (4, 6) for index, book in enumerate(books)]
    assert storable(part).tolist() == expected
    assert any(expected)
