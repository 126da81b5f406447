"""The shadow market: pictures that bring any book to any position, with and without an index, forward and back."""

import logging
from pathlib import Path

import numpy as np
import pytest

from orderbook.book.digest import market_hash
from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import MboArray
from orderbook.tests.records import KINDS, LAST, TOB, add, clear, stream
from replay.feed.index import Index
from replay.streamer.shadow import Shadow
from replay.tests.recordings import books
from replay.tests.streams import STREAMS, eventful, index_bytes, index_of


def books_of(shadow: Shadow) -> str:
    return market_hash(shadow._market.books.items())


@pytest.fixture(params=STREAMS)
def records(request: pytest.FixtureRequest) -> MboArray:
    return STREAMS[request.param]()


@pytest.mark.parametrize("kind", KINDS)
def test_with_an_index_every_position_is_the_same_as_without_one(records: MboArray, kind: BookKind) -> None:
    index = index_of(records, kind)
    assert len(index.positions) >= 3
    through = Shadow(records, kind, index)
    positions = np.random.default_rng(3).integers(0, len(records) + 1, 40 if kind == "kernel" else 12).tolist()
    positions += [0, len(records), *index.positions.tolist()[:3], int(index.positions[0]) - 1]
    for position in positions:  # in no order: forward and back
        plain = make_market(kind)
        plain.apply(records[:position])
        assert through.picture(position).tobytes() == Shadow(records, kind).picture(position).tobytes()
        assert books_of(through) == market_hash(plain.books.items())


def test_both_kinds_of_book_draw_the_same_picture(records: MboArray) -> None:
    for position in (1, 1000, 3333, len(records)):
        pictures = [Shadow(records, kind).picture(position).tobytes() for kind in KINDS]
        assert pictures[0] == pictures[1]


def test_a_picture_brings_a_new_book_to_where_the_shadow_stands(records: MboArray) -> None:
    shadow = Shadow(records, index=index_of(records))
    for position in (1, 777, 5000, 2048, len(records)):
        assert books(shadow.picture(position)) == books(records[:position])


def test_a_top_of_book_level_below_the_best_order_is_in_the_picture() -> None:
    records = stream(
        add("B", 100, 5, 0, LAST | TOB), add("B", 100, 3, 7), add("B", 101, 2, 8), add("A", 110, 9, 0, LAST | TOB)
    )
    assert books(Shadow(records).picture(4)) == books(records)


def test_far_ahead_or_back_it_starts_at_a_keyframe_and_nearby_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    records = eventful(1, 20_000)
    shadow = Shadow(records, index=index_of(records, every=64))
    loaded: list[int] = []
    load = Index.keyframe
    monkeypatch.setattr(Index, "keyframe", lambda index, number: loaded.append(number) or load(index, number))
    shadow.picture(15_000)
    shadow.picture(15_100)
    assert len(loaded) == 1
    shadow.picture(9_000)
    assert len(loaded) == 2
    assert loaded[1] < loaded[0]


def test_a_damaged_keyframe_is_told_removed_and_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = eventful(3)
    data = bytearray(index_bytes(records))
    data[1000] ^= 1
    path = tmp_path / "made.index"
    path.write_bytes(data)
    shadow = Shadow(records, index=Index(np.frombuffer(bytes(data), np.uint8), path))
    with caplog.at_level(logging.WARNING):
        for position in (5000, 600, 300):
            assert shadow.picture(position).tobytes() == Shadow(records).picture(position).tobytes()
    assert "made.index is removed" in caplog.text and "checksum of keyframe" in caplog.text
    assert not path.exists()


def test_an_instrument_whose_book_is_empty_is_pictured_by_its_clear() -> None:
    records = stream(add("B", 100, 5, 1), clear())
    (picture,) = Shadow(records).picture(2)
    assert chr(picture["action"]) == "R" and picture["sequence"] == 2
