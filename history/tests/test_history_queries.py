"""Reads of the history, against PostgreSQL."""

import numpy as np
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from history import queries
from history.tests.rows import CENT, SECOND, TS, instrument, snapshot, store
from orderbook.book.mbo import UNDEF_PRICE
from orderbook.book.snapshot import Level

pytestmark = pytest.mark.django_db


def test_symbols_are_those_registered_and_those_stored() -> None:
    instrument("ESZ5")
    instrument("CLX5")
    store(snapshot(symbol="NGX5"), snapshot(symbol="CLX5"), snapshot(1, symbol="CLX5"))
    assert queries.symbols() == ["CLX5", "ESZ5", "NGX5"]
    assert queries.stored_symbols() == ["CLX5", "NGX5"]


def test_nothing_stored_has_no_symbols() -> None:
    assert queries.symbols() == []


def test_latest_is_newest_by_market_time_and_sequence() -> None:
    store(snapshot(2, ts_event=TS), snapshot(9, ts_event=TS + 5), snapshot(3, ts_event=TS + 5))
    quote = queries.latest("CLX5")
    assert quote == (TS + 5, 9, Level(6483 * CENT, 5, 2), Level(6484 * CENT, 7, 3))
    assert queries.latest("NOPE") is None


def test_span_of_a_symbol() -> None:
    store(*(snapshot(index) for index in range(5)), snapshot(50, symbol="ESZ5"))
    assert queries.span("CLX5") == (TS, TS + 4 * SECOND, 5)
    assert queries.span("NOPE") is None


def test_history_includes_both_ends_in_time_order() -> None:
    store(*(snapshot(index) for index in reversed(range(10))))
    rows = queries.history("CLX5", TS + 2 * SECOND, TS + 5 * SECOND, 100)
    assert [row.sequence for row in rows] == [2, 3, 4, 5]
    assert [row.sequence for row in queries.history("CLX5", TS, TS + 9 * SECOND, 3)] == [0, 1, 2]


def test_an_empty_side_is_none() -> None:
    store(snapshot(bid=None), snapshot(1, ask=None))
    first, second = queries.history("CLX5", TS, TS + SECOND, 10)
    assert first.bid is None and first.ask is not None
    assert second.ask is None and second.bid is not None


def test_columns_mark_empty_sides_and_keep_integers() -> None:
    store(snapshot(bid=None), snapshot(1, ts_event=TS + 123_456_789))
    columns = queries.columns("CLX5", TS, TS + SECOND, 10)
    assert columns["bid_px"].tolist() == [UNDEF_PRICE, 6483 * CENT]
    assert columns["ts_event"].tolist() == [TS, TS + 123_456_789]
    assert columns.dtype["bid_px"] == np.int64
    assert len(queries.columns("CLX5", TS, TS + SECOND, 1)) == 1
    assert len(queries.columns("NOPE", TS, TS + SECOND, 1)) == 0


def test_decimals_follow_the_tick() -> None:
    instrument("ESZ5", tick_size=250_000_000)
    assert queries.decimals("ESZ5") == 2
    assert queries.decimals("NOPE") == 9


@pytest.mark.django_db(transaction=True)
def test_export_reads_through_a_server_side_cursor() -> None:
    store(*(snapshot(index) for index in range(queries.EXPORT_CHUNK + 10)))
    with CaptureQueriesContext(connection):
        rows = queries.export("CLX5", TS, TS + 10**6 * SECOND)
        assert next(rows).sequence == 0
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_cursors WHERE name LIKE '_django%%' AND NOT is_holdable")
            assert cursor.fetchone() == (1,)
        assert sum(1 for _ in rows) == queries.EXPORT_CHUNK + 9


def test_latest_and_symbols_use_the_index() -> None:
    store(*(snapshot(index) for index in range(3000)))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE history_snapshot")
        cursor.execute(f"EXPLAIN {queries._STORED_SYMBOLS}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Seq Scan on history_snapshot" not in plan
