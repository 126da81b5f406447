"""The messages that one web process makes of the books it gets."""

import json
from typing import Any

import pytest

from orderbook.outlet import Frame
from orderbook.tests.books import message, snapshot
from orderbook.topic import KEPT_TRADES, Topic


def topic_with(*seqs: int) -> Topic:
    topic = Topic("CLX5")
    for seq in seqs:
        topic.take(message(snapshot(seq)))
    return topic


def told(topic: Topic, channel: str, missed: int = 1, depth: int = 5) -> Any:
    return json.loads(topic.frame(channel, depth, missed).text)


def trade(number: int) -> str:
    return f'[64.83,{number},"B","{number}"]'


def test_a_book_is_made_once_for_all_who_want_the_same() -> None:
    topic = topic_with(1)
    first = topic.frame("book", 5, 1)
    assert topic.frame("book", 5, 1) is first
    assert topic.frame("book", 6, 1) is not first
    topic.take(message(snapshot(2)))
    assert topic.frame("book", 5, 1) is not first


def test_every_message_names_run_seq_and_times() -> None:
    topic = topic_with(7)
    messages = [told(topic, "book"), told(topic, "bbo"), told(topic, "trades"), json.loads(topic.status_frame().text)]
    for found, kind in zip(messages, ("book", "bbo", "trades", "status"), strict=True):
        assert (found["type"], found["symbol"], found["run_id"], found["seq"]) == (kind, "CLX5", "run-1", 7)
        assert (found["ts"], found["ts_ns"]) == ("2025-09-24T19:30:00.001385399Z", "1758742200001385399")
        assert int(found["published_ns"]) > 0


def test_conflated_counts_the_pushes_in_between() -> None:
    topic = topic_with(1, 2, 3)
    assert told(topic, "book", missed=1)["conflated"] == 0
    assert told(topic, "book", missed=3)["conflated"] == 2


def test_the_best_prices_change_only_with_a_best_price() -> None:
    topic = topic_with(1)
    before = topic.changes["bbo"]
    topic.take(message(snapshot(2, count=50)))  # deeper levels only
    assert topic.changes["bbo"] == before
    topic.take(message(snapshot(3, bid=6482)))
    assert topic.changes["bbo"] == before + 1
    assert (told(topic, "bbo")["bid"], told(topic, "bbo")["ask"]) == ([64.82, 1, 1], [64.84, 1, 1])


def test_an_empty_side_has_no_best_price() -> None:
    topic = Topic("CLX5")
    topic.take(message(snapshot(1, bid=None)))
    assert (told(topic, "bbo")["bid"], told(topic, "bbo")["ask"]) == (None, [64.84, 1, 1])


def test_a_client_that_was_away_gets_all_trades_since_that_are_kept_and_the_number_of_the_others() -> None:
    topic = Topic("CLX5")
    for seq in range(1, 101):
        topic.take(message(snapshot(seq), [trade(seq)], seq))
    assert [row[1] for row in told(topic, "trades", missed=3)["trades"]] == [98, 99, 100]
    assert told(topic, "trades", missed=3)["conflated"] == 0
    everything = told(topic, "trades", missed=70)
    assert (len(everything["trades"]), everything["conflated"], everything["trade_count"]) == (KEPT_TRADES, 20, 100)


def test_trades_that_never_reached_this_process_count_as_changes() -> None:
    topic = Topic("CLX5")
    topic.take(message(snapshot(1), [trade(1)], 1))
    topic.take(message(snapshot(5), [trade(5)], 5))  # three pushes were lost
    assert topic.changes["trades"] == 5
    assert told(topic, "trades", missed=4)["conflated"] == 3


def test_trades_from_before_a_loss_are_not_told_again() -> None:
    topic = Topic("CLX5")
    topic.take(message(snapshot(1), [trade(number) for number in range(30, 40)], 39))
    before = topic.changes["trades"]
    topic.take(message(snapshot(9), [trade(number) for number in range(70, 80)], 79))  # 40 to 69 were lost
    found = told(topic, "trades", missed=topic.changes["trades"] - before)
    assert [row[1] for row in found["trades"]] == list(range(70, 80))
    assert (found["conflated"], found["trade_count"]) == (30, 79)


def test_trades_that_are_there_already_are_not_told_twice() -> None:
    topic = Topic("CLX5")
    topic.take(message(snapshot(1), [trade(1), trade(2)], 2))
    topic.take(message(snapshot(2), [trade(1), trade(2), trade(3)], 3))
    assert topic.changes["trades"] == 3
    assert [row[1] for row in told(topic, "trades", missed=50)["trades"]] == [1, 2, 3]


def test_a_book_that_comes_late_is_not_the_newest() -> None:
    topic = topic_with(5)
    changes = dict(topic.changes)
    assert not topic.take(message(snapshot(5)))
    assert not topic.take(message(snapshot(4), [trade(1)], 1))
    assert (told(topic, "book")["seq"], topic.changes) == (5, changes)
    assert topic.take(message(snapshot(6)))
    assert topic.take(message(snapshot(1, run_id="run-2")))


@pytest.mark.parametrize("field", ["run_id", "seq", "head", "bids", "asks"])
def test_a_book_that_lacks_something_changes_nothing(field: str) -> None:
    topic = topic_with(1)
    frame, changes = topic.frame("book", 5, 1), dict(topic.changes)
    broken: Any = message(snapshot(2), [trade(1)], 1)
    del broken[field]
    with pytest.raises(KeyError, match=field):
        topic.take(broken)
    assert (topic.frame("book", 5, 1), topic.changes) == (frame, changes)


def test_a_new_run_begins_its_trades_anew() -> None:
    topic = Topic("CLX5")
    topic.take(message(snapshot(1), [trade(1), trade(2)], 2))
    topic.take(message(snapshot(1, run_id="run-2"), [trade(9)], 1))
    assert [row[1] for row in told(topic, "trades", missed=5)["trades"]] == [9]


def test_the_same_staleness_is_told_once() -> None:
    topic = topic_with(1)
    assert topic.tell(("redis", "Redis does not answer"))
    assert not topic.tell(("redis", "Redis does not answer"))
    stale = json.loads(topic.status_frame().text)
    assert (stale["status"], stale["reason"]) == ("stale", "redis") and "Redis" in stale["detail"]
    assert topic.tell(None)
    assert json.loads(topic.status_frame().text)["status"] == "live"


def test_before_the_first_book_the_status_says_so_with_nulls() -> None:
    topic = Topic('a"b')
    found = json.loads(topic.status_frame().text)
    assert (found["symbol"], found["seq"], found["ts_ns"], found["status"]) == ('a"b', None, None, "live")


def test_frames_of_one_push_are_bounded() -> None:
    topic = topic_with(1)
    frames: list[Frame] = [topic.frame("book", depth, missed) for depth in range(1, 201) for missed in (1, 2, 3)]
    assert len(topic._frames) <= 256
    assert json.loads(frames[0].text)["bids"] == [[64.83, 1, 1]]
