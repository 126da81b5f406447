"""What a mark says as bytes that make no sense, and which engines share one."""

import json
import zlib
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from psycopg import OperationalError

from engine_worker import mark as mark_module
from engine_worker.book_names import BookName
from engine_worker.mark import Mark, MarkDamaged, first_mark, names_text, packed, unpacked
from engine_worker.sinks.deadline import DeadlineConnection
from engine_worker.sinks.mark_table import MarkTable
from engine_worker.tests.builders import config
from engine_worker.threads import mark_table_of
from engine_worker.trail import Spot
from orderbook.book.mbo import BookKey
from orderbook.book.snapshot_tape import STATE_COLUMNS

NAMES = (BookName("CLX5", 10**7, BookKey(1, 7)), BookName("", 0, BookKey(1, 8)))
MARK = Mark(7, Spot(0, 5, bytes(56), 3), 9, NAMES, np.ones((2, STATE_COLUMNS), np.int64))
HEAD: dict[str, Any] = {
    "replay_id": 7, "records": 9, "spot": [0, 5, "00" * 56, 3], "feed": None, "books": 2,
    "names": [["CLX5", 10**7, [1, 7]], ["", 0, [1, 8]]],
}  # fmt: skip
NUMBERS = 2 * STATE_COLUMNS


def signed(content: bytes, *, cut: int = 0) -> bytes:
    """Return bytes that are a mark as far as version and checksum go."""
    body = zlib.compress(content)
    body = body[: len(body) - cut]
    return packed(MARK)[:2] + zlib.crc32(body).to_bytes(4, "little") + body


def content(head: object, numbers: int = NUMBERS) -> bytes:
    text = json.dumps(head).encode()
    return len(text).to_bytes(4, "little") + text + np.ones(numbers, np.int64).tobytes()


def test_what_the_damaged_marks_here_are_made_of_is_a_mark() -> None:
    found = unpacked(signed(content(HEAD)))
    assert (found.spot, found.records, found.names) == (MARK.spot, MARK.records, NAMES)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff\xff\x7f{}",
        b"\x02\x00\x00\x00[}",
        content([]),
        content({name: value for name, value in HEAD.items() if name != "spot"}),
        content(HEAD | {"spot": [1, 2]}),
        content(HEAD | {"spot": [0, 2**64, "00", 1]}),
        content(HEAD | {"spot": [0, 5, "no hex", 1]}),
        content(HEAD | {"names": [["CLX5", 1, 7]]}),
        content(HEAD | {"names": HEAD["names"][:1]}),
        content(HEAD | {"books": 3}, 3 * STATE_COLUMNS),
        content(HEAD, NUMBERS + 1),
        content(HEAD | {"books": -1}),
        content(HEAD | {"books": 10**6}),
        content(HEAD | {"feed": [1]}),
        content(HEAD)[:-3],
    ],
)  # fmt: skip
def test_bytes_whose_checksum_is_right_and_that_make_no_sense_are_a_damaged_mark(data: bytes) -> None:
    with pytest.raises(MarkDamaged):
        unpacked(signed(data))


def test_a_mark_that_ends_early_or_never_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MarkDamaged, match="no end"):
        unpacked(signed(content(HEAD), cut=3))
    monkeypatch.setattr(mark_module, "MOST_BYTES", 10_000)
    with pytest.raises(MarkDamaged, match="no end within 10000 bytes"):
        unpacked(signed(content(HEAD) + bytes(10**6)))


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"depth": 3, "push_ms": 99, "symbols": ("B", "A")}, True),
        ({"name": "west"}, False),
        ({"dataset": "GLBX.MDP3"}, False),
        ({"symbols": ("A",)}, False),
        ({"symbols": ("A", "B", "C")}, False),
        ({"host": "10.0.0.1"}, False),
        ({"port": 2}, False),
        ({"snapshot_every": 10}, False),
        ({"snapshot_ms": 10}, False),
        ({"max_msgs": 10}, False),
        ({"book": "reference"}, False),
    ],
)
def test_engines_that_would_store_other_rows_or_ask_another_gateway_have_a_mark_of_their_own(
    tmp_path: Path, changes: dict[str, Any], is_same: bool
) -> None:
    first = config(tmp_path, symbols=("A", "B"))
    assert (mark_table_of(replace(first, **changes)).row == mark_table_of(first).row) is is_same


def test_names_are_put_into_words_once_while_they_stay_the_same(
    pg_conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(
        "engine_worker.sinks.mark_table.names_text", lambda names: (asked.append(names), names_text(names))[1]
    )
    table = MarkTable(pg_conninfo, "engine", "GLBX.MDP3", ())
    finer = (NAMES[0]._replace(tick=1), NAMES[1])
    with DeadlineConnection.connect(pg_conninfo, autocommit=True) as connection:
        for names in (NAMES, NAMES, finer):
            table.keep(connection, replace(MARK, names=names))
            found = table.load(first_mark(None), Event())
            assert found is not None and found.names == names
    assert asked == [(), NAMES, finer]


def test_connecting_to_ask_for_a_mark_may_take_as_long_as_is_left(
    pg_conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: list[object] = []

    def refused(conninfo: str, **options: object) -> None:
        allowed.append(options["connect_timeout"])
        raise OperationalError("no")

    stop = Event()
    stop.set()
    monkeypatch.setattr(DeadlineConnection, "connect", refused)
    for within_s in (7.0, 0.5):
        monkeypatch.setattr("engine_worker.sinks.mark_table.LOAD_WITHIN_S", within_s)
        assert MarkTable(pg_conninfo, "engine", "GLBX.MDP3", ()).load(first_mark(None), stop) is None
    assert allowed == [7, 2]
