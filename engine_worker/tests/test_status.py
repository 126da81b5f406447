"""What the engine says of itself, and how it is configured."""

from pathlib import Path

import pytest
from pytest_django import Settings

from engine_worker.config import engine_config
from engine_worker.naming import Registered
from engine_worker.status import BOOKS_SHOWN, BOOKS_TOLD, StatusReader, status_line
from engine_worker.tests.builders import Desk, blank, clear, reference_book, session
from engine_worker.threads import warm_up
from history.models import Instrument
from orderbook.book.mbo import BookKey, Side


def test_the_status_counts_the_run_and_shows_the_best_prices(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    reader = StatusReader(desk.engine, [desk.stored, desk.pushed])
    desk.feed(session(1000))
    desk.engine.end()
    status = reader()
    assert (status["state"], status["records"], status["snapshots"]) == ("streaming", 1000, len(desk.snapshots))
    assert status["records_per_s"] > 0
    assert status["run_id"] == desk.books[-1].run_id
    bid = reference_book(session(1000)).levels(Side.BID, 1)[0].tolist()
    assert status["symbols"]["CLX5"]["bid"] == f"{bid[0] / 10**9:.2f} x {bid[1]}"
    assert status["symbols"]["CLX5"]["ts"].endswith("Z")
    assert status["feed_size_bytes"] == 0
    assert status["degraded"] == {}
    assert "1,000 records" in status_line(status)


def test_of_many_books_the_default_one_and_the_first_are_told_and_fewer_fill_a_line(tmp_path: Path) -> None:
    count = BOOKS_TOLD + 20
    symbols = {number: f"I{number}" for number in range(1, count)} | {count: "CLX5"}
    desk = Desk(tmp_path, symbols)
    desk.feed(*(session(3, instrument_id=number) for number in symbols))
    desk.engine.end()
    told = StatusReader(desk.engine, [])()
    assert list(told["symbols"]) == ["CLX5", *(f"I{number}" for number in range(1, BOOKS_TOLD + 1))]
    assert status_line(told).count(" / ") == BOOKS_SHOWN


def test_a_quiet_feed_is_waited_for_and_an_empty_side_has_no_price(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    reader = StatusReader(desk.engine, [])
    assert reader()["state"] == "waiting"
    desk.feed(session(100), clear(), wait_ms=30)
    assert reader()["state"] == "streaming"
    desk.feed(blank(0), wait_ms=1500)
    status = reader()
    assert status["state"] == "waiting"
    assert status["symbols"]["CLX5"] == {
        "bid": "-",
        "ask": "-",
        "ts": status["symbols"]["CLX5"]["ts"],
        "state": "empty",
    }


def test_the_last_replay_is_reported_until_the_next_one_begins(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    reader = StatusReader(desk.engine, [])
    desk.feed(session(1000))
    desk.engine.end()
    run_id = reader()["run_id"]
    desk.connect()
    assert (reader()["records"], reader()["run_id"]) == (1000, run_id)
    desk.feed(session(10))
    assert reader()["records"] == 10


def test_faults_and_degraded_sinks_are_shown(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.stored.degraded = "it is away"
    desk.engine.fault = "disk full"
    status = StatusReader(desk.engine, [desk.stored])()
    assert status["degraded"] == {"remembering": "it is away", "results": "disk full"}
    assert "DEGRADED remembering: it is away" in status_line(status)


@pytest.mark.django_db
def test_the_configuration_comes_from_the_settings_and_the_known_instruments(settings: Settings) -> None:
    settings.DEPTH = 17
    settings.FEED_FRAMING = "dbn"
    Instrument.objects.create(symbol="CLX5", instrument_id=7, publisher_id=1, tick_size=10_000_000)
    config = engine_config()
    assert (config.depth, config.framing) == (17, "dbn")
    assert config.registered == {"CLX5": Registered(BookKey(1, 7), 10_000_000)}
    with pytest.raises(AttributeError):
        config.depth = 1  # type: ignore[misc]


@pytest.mark.parametrize("framing", ["csv", "dbn"])
@pytest.mark.parametrize("kind", ["kernel", "reference"])
def test_every_book_and_framing_warms_up(tmp_path: Path, framing: str, kind: str) -> None:
    warm_up(Desk(tmp_path, framing=framing, book=kind).engine.config)


def test_the_status_line_needs_no_symbols(tmp_path: Path) -> None:
    assert status_line(StatusReader(Desk(tmp_path).engine, [])()).count("|") == 3
