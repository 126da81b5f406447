"""The trades that go with a push."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from engine_worker.sinks.broadcast import LiveBook, message_of
from engine_worker.tests.builders import Desk, interleaved, pieces, session
from engine_worker.trades import KEPT, Trades
from orderbook.book.mbo import Action, BookKey, Flags, MboArray
from orderbook.book.tape import TRADE_ROW
from orderbook.live import book_text


def traded(records: MboArray) -> list[tuple[int, int]]:
    """Return price and sequence of each trade."""
    trades = records[records["action"] == Action.TRADE]
    return list(zip(trades["price"].tolist(), trades["sequence"].tolist(), strict=True))


def told(book: LiveBook) -> list[tuple[int, int]]:
    newest = book.traded.newest
    return list(zip(newest["price"].tolist(), newest["sequence"].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_every_trade_goes_with_the_first_push_behind_it(tmp_path: Path, seed: int) -> None:
    one, other = session(1500), session(1500, seed=2, instrument_id=8)
    desk = Desk(tmp_path, push_ms=1)
    desk.feed(*pieces(interleaved(one, other), seed), wait_ms=1)
    desk.engine.end()
    for symbol, records in (("CLX5", one), ("ESZ5", other)):
        books = [book for book in desk.live if book.snapshot.symbol == symbol and not book.complete]
        before = 0
        for book in books:
            assert told(book) == traded(records)[before : book.traded.total][-KEPT:]
            before = book.traded.total
        assert before == len(traded(records)) > KEPT


def test_only_the_newest_are_told_and_the_count_says_how_many_there_were(tmp_path: Path) -> None:
    records = session(3000)
    desk = Desk(tmp_path, push_ms=1000)
    desk.feed(records[:1], *pieces(records[1:], 1))
    desk.engine.end()
    last = [book for book in desk.live if not book.complete][-1]
    assert told(last) == traded(records)[-KEPT:]
    assert last.traded.total == len(traded(records)) > KEPT
    text = json.loads(book_text(message_of(last, 0), 5))
    assert (len(text["trades"]), text["trade_count"], len(text["bids"])) == (KEPT, last.traded.total, 5)
    price, size, side, ts_ns = text["trades"][-1]
    newest = records[records["action"] == Action.TRADE][-1]
    assert (round(price * 10**9), size, side, ts_ns) == (
        newest["price"], newest["size"], chr(newest["side"]), str(newest["ts_event"]),
    )  # fmt: skip


def test_a_complete_book_has_no_trades_and_takes_none_away(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.feed(session(500))
    complete = next(book for book in desk.live if book.complete)
    assert "trade" not in book_text(message_of(complete, 0), 5)
    assert next(book for book in desk.live if not book.complete).traded.total > 0


def test_trades_that_nobody_takes_need_no_more_memory_however_many_they_are() -> None:
    trades, rows = Trades(), np.zeros(5000, TRADE_ROW)
    rows["instrument_id"], rows["publisher_id"] = np.arange(5000) % 3, 1
    for _ in range(20):
        trades.add(rows)
    assert sum(len(row) for row in trades._heap) <= 2 * 8192
    assert sum(trades.take(BookKey(1, number)).total for number in range(3)) == 100_000


@pytest.mark.parametrize("seed", range(20))
def test_each_trade_is_told_once_whoever_asks_between_however_many_come(seed: int) -> None:
    rnd = random.Random(seed)
    trades, told_of, came_of = Trades(), dict[int, list[int]](), dict[int, list[int]]()
    number = 0
    for _ in range(60):
        rows = np.zeros(rnd.choice((0, 1, 5, 200, 3000)), TRADE_ROW)
        rows["publisher_id"], rows["instrument_id"] = 1, [rnd.randrange(7) for _ in rows]
        rows["sequence"] = range(number, number + len(rows))
        number += len(rows)
        trades.add(rows)
        for book in range(7):
            came_of[book] = came_of.get(book, []) + rows["sequence"][rows["instrument_id"] == book].tolist()
        for book in rnd.sample(range(7), rnd.randrange(4)):
            told_before = len(told_of.get(book, []))
            traded = trades.take(BookKey(1, book))
            assert traded.newest["sequence"].tolist() == came_of[book][told_before:][-KEPT:]
            assert traded.total == len(came_of[book])
            told_of[book] = list(came_of[book])


def test_a_book_in_mid_event_keeps_its_trades_for_the_next_push(tmp_path: Path) -> None:
    records = session(2000)
    inside = next(
        i for i in range(1, 2000) if records["action"][i] == Action.TRADE and not records["flags"][i] & Flags.LAST
    )
    desk = Desk(tmp_path, push_ms=1)
    desk.feed(records[:inside], records[inside : inside + 1], wait_ms=2)
    before = len(desk.books)
    end = next(i for i in range(inside, 2000) if records["flags"][i] & Flags.LAST) + 1
    desk.feed(records[inside + 1 : end], wait_ms=2)
    assert len(desk.books) == before + 1
    last = [book for book in desk.live if not book.complete][-1]
    assert (int(records["price"][inside]), int(records["sequence"][inside])) in told(last)
