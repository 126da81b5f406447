"""What one client is sent, and when: decided without a socket or a clock."""

import json

import pytest

from orderbook.socket_counts import COUNTS
from orderbook.socket_protocol import Close, Wish
from orderbook.tests.books import message, snapshot
from orderbook.tests.outlets import Paper
from orderbook.topic import Topic
from orderbook.viewer import MAX_UNREAD_BYTES, Subscription, Viewer

PATIENCE_S = 10.0


class Desk:
    """One client that follows one topic."""

    def __init__(self, push_ms: int = 100, channels: tuple[str, ...] = ("book",), acks: int = 0) -> None:
        self.paper, self.topic = Paper(), Topic("CLX5")
        self.viewer = Viewer(self.paper, PATIENCE_S)
        self.viewer.want_acks(acks)
        self.subscription = Subscription(self.viewer, self.topic, Wish("CLX5", 5, push_ms, channels))

    def push(self, seq: int, now: float) -> float | None:
        self.topic.take(message(snapshot(seq)))
        return self.subscription.look(now)


def test_nothing_new_is_nothing_to_do() -> None:
    desk = Desk()
    assert desk.subscription.look(0) is None
    desk.push(1, 0)
    assert desk.subscription.look(50) is None
    assert desk.paper.seqs == [1]


def test_push_ms_is_kept_and_the_newest_goes_when_it_has_come() -> None:
    desk = Desk(push_ms=1000)
    assert desk.push(1, 100.0) is None
    again = desk.push(2, 100.1)
    assert again is not None and 100.9 < again < 101
    assert desk.push(3, 100.2) == again
    assert desk.subscription.look(again) is None
    assert desk.paper.seqs == [1, 3]
    assert [book["conflated"] for book in desk.paper.books] == [0, 1]


@pytest.mark.parametrize("jitter_s", [0.0, 0.008, 0.012])
def test_a_client_that_asks_for_the_pace_of_the_pushes_gets_each(jitter_s: float) -> None:
    desk = Desk(push_ms=50)
    for seq in range(1, 41):
        desk.push(seq, 100 + seq * 0.05 + (jitter_s if seq % 3 else -jitter_s))
    assert desk.paper.seqs == list(range(1, 41))


def test_a_client_is_not_sent_more_on_average_than_it_asks_for() -> None:
    desk = Desk(push_ms=100)
    for tick in range(1000):
        desk.push(tick, 100 + tick * 0.01)
    assert len(desk.paper.books) <= 10 / 0.1 / 0.98 + 1


def test_who_does_not_take_what_was_sent_gets_only_the_newest_later() -> None:
    desk = Desk(push_ms=10)
    desk.push(1, 0.0)
    desk.paper.unsent = 5
    for seq in range(2, 30):
        assert desk.push(seq, seq * 0.05) is not None
    assert desk.paper.seqs == [1]
    desk.paper.unsent = 0
    conflated = COUNTS.conflated
    assert desk.subscription.look(2.0) is None
    assert desk.paper.seqs == [1, 29]
    assert desk.paper.books[-1]["conflated"] == COUNTS.conflated - conflated == 27


def test_who_takes_nothing_for_too_long_is_closed_with_a_reason() -> None:
    desk = Desk(push_ms=10)
    desk.push(1, 0.0)
    desk.paper.unsent = 5
    desk.push(2, 1.0)
    desk.subscription.look(1.0 + PATIENCE_S)
    assert desk.paper.closed is None
    desk.subscription.look(1.1 + PATIENCE_S)
    assert desk.paper.closed == (Close.TOO_SLOW, "too slow: nothing taken for 10 s")
    assert desk.push(3, 30.0) is None


def test_a_client_that_takes_something_now_and_then_is_not_closed() -> None:
    desk = Desk(push_ms=10)
    for seq in range(20):
        desk.paper.unsent = 5 if seq % 2 else 0
        desk.push(seq, seq * (PATIENCE_S - 1))
    assert desk.paper.closed is None and len(desk.paper.books) == 10


def test_acknowledgements_open_the_window_again() -> None:
    desk = Desk(push_ms=10, acks=2)
    for seq in range(1, 6):
        desk.push(seq, seq)
    assert desk.paper.seqs == [1, 2]
    desk.viewer.acknowledge(1, None)
    desk.subscription.look(6)
    assert desk.paper.seqs == [1, 2, 5]
    desk.viewer.acknowledge(5, "CLX5")
    for seq in (6, 7, 8):
        desk.push(seq, seq + 1)
    assert desk.paper.seqs == [1, 2, 5, 6, 7]


@pytest.mark.parametrize(("seq", "symbol"), [(7, None), (1, "ESZ5"), (0, None)])
def test_an_acknowledgement_of_what_was_not_sent_changes_nothing(seq: int, symbol: str | None) -> None:
    desk = Desk(push_ms=10, acks=1)
    desk.push(1, 1)
    desk.viewer.acknowledge(seq, symbol)
    desk.push(2, 2)
    assert desk.paper.seqs == [1]


def test_who_acknowledges_nothing_for_too_long_is_closed() -> None:
    desk = Desk(push_ms=10, acks=1)
    desk.push(1, 1)
    desk.push(2, 2)
    desk.push(3, 2.1 + PATIENCE_S)
    assert desk.paper.closed == (Close.TOO_SLOW, "too slow: 1 messages unacknowledged for 10 s")


def test_channels_are_shown_side_by_side() -> None:
    desk = Desk(push_ms=10, channels=("book", "bbo", "trades"))
    desk.topic.take(message(snapshot(1), ['[64.83,2,"B","5"]'], 1))
    desk.subscription.look(0)
    desk.push(2, 1)
    assert [found["type"] for found in desk.paper.messages] == ["book", "bbo", "trades", "book"]


def test_everybody_hears_that_books_are_stale_and_fresh_again_at_once() -> None:
    desk = Desk(push_ms=5000)
    desk.push(1, 0.0)
    desk.topic.tell(("engine", "gone"))
    desk.subscription.look(0.1)
    desk.topic.tell(None)
    desk.subscription.look(0.2)
    found = [(told["type"], told.get("status")) for told in desk.paper.messages]
    assert found == [("book", None), ("status", "stale"), ("status", "live")]


def test_the_status_is_told_at_once_to_who_asks_for_it_or_comes_while_it_is_stale() -> None:
    asks = Desk(channels=("status",))
    asks.subscription.look(0)
    assert asks.paper.messages == []  # nobody has looked yet
    asks.topic.tell(None)
    asks.subscription.look(0)
    assert [told["status"] for told in asks.paper.messages] == ["live"]
    late = Desk()
    late.topic.tell(("redis", "gone"))
    late.subscription = Subscription(late.viewer, late.topic, Wish("CLX5", 5, 50))
    late.subscription.look(0)
    assert [told["status"] for told in late.paper.messages] == ["stale"]


def test_who_asks_and_never_reads_the_answers_is_closed() -> None:
    desk = Desk()
    desk.paper.unsent = MAX_UNREAD_BYTES + 1
    desk.viewer.say(json.dumps({"type": "ack"}))
    assert desk.paper.messages == []
    assert desk.paper.closed is not None and desk.paper.closed[0] == Close.TOO_SLOW


def test_a_change_of_a_subscription_does_not_tell_again_what_was_told() -> None:
    desk = Desk(push_ms=1000, channels=("book", "trades"))
    desk.topic.take(message(snapshot(1), ['[64.83,2,"B","5"]'], 1))
    desk.subscription.look(100.0)
    assert [told["type"] for told in desk.paper.messages] == ["book", "trades"]
    for depth in (6, 7, 8, 9, 10):
        desk.subscription = desk.subscription.changed(Wish("CLX5", depth, 1000, ("book", "trades")))
        again = desk.subscription.look(100.0 + depth / 100)
        assert again is not None and again > 100.9
    desk.subscription.look(again)
    assert [told["type"] for told in desk.paper.messages] == ["book", "trades", "book"]
    assert len(desk.paper.books[-1]["bids"]) == 10


def test_a_change_of_the_pace_holds_from_the_last_message_on() -> None:
    desk = Desk(push_ms=5000)
    desk.push(1, 100.0)
    desk.subscription = desk.subscription.changed(Wish("CLX5", 5, 100))
    again = desk.push(2, 100.05)
    assert again is not None and 100.05 < again < 100.1
    desk.subscription.look(again)
    desk.subscription = desk.subscription.changed(Wish("CLX5", 5, 5000))
    again = desk.push(3, 100.2)
    assert again is not None and again > 104
    assert desk.paper.seqs == [1, 2]


def test_a_channel_that_is_asked_for_anew_tells_its_present_state() -> None:
    desk = Desk(push_ms=10)
    desk.topic.tell(None)
    desk.push(1, 100.0)
    desk.subscription = desk.subscription.changed(Wish("CLX5", 5, 10, ("book", "bbo", "status")))
    desk.subscription.look(101.0)
    assert [told["type"] for told in desk.paper.messages] == ["book", "status", "bbo"]
    desk.subscription = desk.subscription.changed(Wish("CLX5", 5, 10, ("bbo",)))
    desk.subscription = desk.subscription.changed(Wish("CLX5", 5, 10, ("bbo", "book")))
    desk.subscription.look(102.0)
    assert [told["type"] for told in desk.paper.messages[3:]] == ["book"]


def test_a_status_does_not_put_off_the_next_book() -> None:
    desk = Desk(push_ms=5000)
    desk.topic.tell(("engine", "gone"))
    desk.subscription.look(100.0)
    desk.push(1, 100.1)
    assert [told["type"] for told in desk.paper.messages] == ["status", "book"]
