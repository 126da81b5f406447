"""What `/ws` understands, as pure text."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbook.socket_protocol import (
    CHANNELS,
    MAX_SUBSCRIPTIONS,
    Ack,
    Rest,
    SocketError,
    Watch,
    Wish,
    ack_of_rest,
    ack_of_wish,
    read_request,
)

DEFAULT = Wish("CLX5", 50, 50)


def held(*wishes: Wish) -> dict[str, Wish]:
    return {wish.symbol: wish for wish in wishes}


def ask(now: dict[str, Wish], **request: Any) -> Any:
    return read_request(json.dumps(request), now, DEFAULT)


def refused(text: str, now: dict[str, Wish] | None = None) -> str:
    with pytest.raises(SocketError) as caught:
        read_request(text, now or {}, DEFAULT)
    assert json.loads(caught.value.text())["type"] == "error"
    assert caught.value.close is None
    return caught.value.code


def test_subscribe_without_anything_takes_the_defaults() -> None:
    assert ask({}, type="subscribe") == Watch(DEFAULT, None, None)


def test_subscribe_starts_from_the_defaults_and_update_from_what_holds() -> None:
    now = held(Wish("ESZ5", 5, 1000, ("bbo",)))
    assert ask(now, type="subscribe", depth=9) == Watch(Wish("CLX5", 9, 50), None, None)
    assert ask(now, type="update", depth=9) == Watch(Wish("ESZ5", 9, 1000, ("bbo",)), "ESZ5", None)
    assert ask(now, type="update", symbol="ESZ5", channels=["status", "book", "book"]) == Watch(
        Wish("ESZ5", 5, 1000, ("book", "status")), "ESZ5", None
    )


def test_the_only_subscription_may_move_to_another_symbol() -> None:
    assert ask(held(Wish("ESZ5", 5, 99)), type="update", symbol="X") == Watch(Wish("X", 5, 99), "ESZ5", None)


def test_a_second_subscribe_of_a_symbol_takes_the_place_of_the_first() -> None:
    assert ask(held(Wish("CLX5", 5, 99)), type="subscribe", depth=7) == Watch(Wish("CLX5", 7, 50), "CLX5", None, True)


def test_with_several_subscriptions_an_update_names_one_of_them() -> None:
    now = held(Wish("CLX5", 5, 99), Wish("ESZ5", 5, 99))
    assert ask(now, type="update", symbol="ESZ5", depth=1).instead_of == "ESZ5"
    assert refused('{"type":"update","depth":1}', now) == "which_symbol"
    assert refused('{"type":"update","symbol":"NQZ5"}', now) == "not_subscribed"


def test_unsubscribe_ends_one_or_all() -> None:
    now = held(Wish("CLX5", 5, 99), Wish("ESZ5", 5, 99))
    assert ask(now, type="unsubscribe", symbol="ESZ5") == Rest(("ESZ5",))
    assert ask(now, type="unsubscribe") == Rest(("CLX5", "ESZ5"))
    assert ask({}, type="unsubscribe") == Rest(())
    assert refused('{"type":"unsubscribe","symbol":"X"}', now) == "not_subscribed"


def test_a_window_of_acknowledgements_is_asked_for_and_acknowledged() -> None:
    assert ask({}, type="subscribe", acks=20).acks == 20
    assert ask(held(DEFAULT), type="update", acks=0).acks == 0
    assert ask({}, type="ack", seq=7) == Ack(7, None)
    assert ask({}, type="ack", seq=7, symbol="CLX5") == Ack(7, "CLX5")
    for text in ('{"type":"ack"}', '{"type":"ack","seq":"7"}', '{"type":"ack","seq":-1}'):
        assert refused(text) == "out_of_range"
    assert refused('{"type":"subscribe","acks":1001}') == "out_of_range"


def test_answers_tell_what_holds() -> None:
    wishes = held(DEFAULT, Wish("ESZ5", 5, 99, ("bbo", "trades")))
    assert json.loads(ack_of_wish(wishes["ESZ5"], 20, wishes)) == {
        "type": "ack",
        "symbol": "ESZ5",
        "depth": 5,
        "push_ms": 99,
        "channels": ["bbo", "trades"],
        "acks": 20,
        "symbols": ["CLX5", "ESZ5"],
    }
    left = json.loads(ack_of_rest(DEFAULT, 0, held(DEFAULT)))
    assert (left["symbol"], left["channels"], left["symbols"]) == (None, [], ["CLX5"])


def test_subscriptions_are_bounded() -> None:
    now = held(*(Wish(f"S{number}", 5, 99) for number in range(MAX_SUBSCRIPTIONS)))
    assert refused('{"type":"subscribe","symbol":"ONEMORE"}', now) == "too_many_symbols"
    assert ask(now, type="subscribe", symbol="S1").instead_of == "S1"


def test_update_needs_a_subscription() -> None:
    assert refused('{"type":"update","depth":5}') == "not_subscribed"


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[1]", "7", "null", '"subscribe"', "[" * 5000])
def test_what_is_no_json_object_is_bad_json(text: str) -> None:
    assert refused(text) == "bad_json"


@pytest.mark.parametrize("text", ["{}", '{"type":null}', '{"type":"order"}', '{"type":["subscribe"]}'])
def test_an_unknown_type_is_named(text: str) -> None:
    assert refused(text) == "unknown_type"


@pytest.mark.parametrize("value", ["0", "201", "-1", "1.5", '"50"', "true", "null", "[]", "1e3", "9" * 30])
def test_a_depth_out_of_range_is_refused(value: str) -> None:
    assert refused(f'{{"type":"subscribe","depth":{value}}}') == "out_of_range"


@pytest.mark.parametrize("value", ["9", "5001", "false"])
def test_a_push_ms_out_of_range_is_refused(value: str) -> None:
    assert refused(f'{{"type":"subscribe","push_ms":{value}}}') == "out_of_range"


@pytest.mark.parametrize("value", ['""', "5", "null", '"' + "X" * 72 + '"', '"a\\u0000b"', '"a\\nb"'])
def test_a_symbol_that_cannot_be_one_is_refused(value: str) -> None:
    assert refused(f'{{"type":"subscribe","symbol":{value}}}') == "bad_symbol"


@pytest.mark.parametrize("value", ["[]", "null", '"book"', '["news"]', '["book",[]]', "[{}]", "[1]"])
def test_channels_that_there_are_not_are_refused(value: str) -> None:
    assert refused(f'{{"type":"subscribe","channels":{value}}}') == "bad_channels"


def test_a_value_nested_as_deep_as_can_be_read_is_refused_too() -> None:
    # Showing a value goes a few calls deeper than reading it did: one of these depths lies in between.
    for nested in range(700, 1000):
        text = '{"type":"subscribe","depth":' + "[" * nested + "]" * nested + "}"
        assert refused(text) in ("out_of_range", "bad_json")


@pytest.mark.parametrize(("depth", "push_ms"), [(1, 10), (200, 5000)])
def test_the_ends_of_the_ranges_are_allowed(depth: int, push_ms: int) -> None:
    assert ask({}, type="subscribe", depth=depth, push_ms=push_ms).wish == Wish("CLX5", depth, push_ms)


KINDS = ["subscribe", "update", "unsubscribe", "ack"]
FIELDS = ["symbol", "depth", "push_ms", "channels", "acks", "seq"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.sampled_from(["CLX5", *CHANNELS]),
    lambda leaf: st.lists(leaf) | st.dictionaries(st.text(), leaf),
)


@given(st.sampled_from(KINDS) | VALUES, st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_any_json_is_understood_or_refused(kind: object, fields: dict[str, object]) -> None:
    try:
        read_request(json.dumps({**fields, "type": kind}), held(DEFAULT), DEFAULT)
    except SocketError as error:
        assert json.loads(error.text())["detail"]
