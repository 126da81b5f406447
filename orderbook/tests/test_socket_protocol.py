"""What `/ws` understands, as pure text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbook.socket_protocol import SocketError, Wish, read_request

DEFAULT = Wish("CLX5", 50, 50)
NOTHING = Wish(None, 50, 50)


def refused(text: str, now: Wish = NOTHING) -> str:
    with pytest.raises(SocketError) as caught:
        read_request(text, now, DEFAULT)
    assert json.loads(caught.value.text())["type"] == "error"
    return caught.value.code


def test_subscribe_without_anything_takes_the_defaults() -> None:
    assert read_request('{"type":"subscribe"}', NOTHING, DEFAULT) == ("watch", DEFAULT)


def test_subscribe_starts_from_the_defaults_and_update_from_what_holds() -> None:
    now = Wish("ESZ5", 5, 1000)
    assert read_request('{"type":"subscribe","depth":9}', now, DEFAULT)[1] == Wish("CLX5", 9, 50)
    assert read_request('{"type":"update","depth":9}', now, DEFAULT)[1] == Wish("ESZ5", 9, 1000)
    assert read_request('{"type":"update","symbol":"X"}', now, DEFAULT)[1] == Wish("X", 5, 1000)


def test_unsubscribe_keeps_the_rest_of_the_wish() -> None:
    assert read_request('{"type":"unsubscribe"}', Wish("ESZ5", 5, 99), DEFAULT) == ("rest", Wish(None, 5, 99))


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


def test_a_value_nested_as_deep_as_can_be_read_is_refused_too() -> None:
    # Showing a value goes a few calls deeper than reading it did: one of these depths lies in between.
    for nested in range(700, 1000):
        text = '{"type":"subscribe","depth":' + "[" * nested + "]" * nested + "}"
        assert refused(text) in ("out_of_range", "bad_json")


@pytest.mark.parametrize(("depth", "push_ms"), [(1, 10), (200, 5000)])
def test_the_ends_of_the_ranges_are_allowed(depth: int, push_ms: int) -> None:
    text = json.dumps({"type": "subscribe", "depth": depth, "push_ms": push_ms})
    assert read_request(text, NOTHING, DEFAULT)[1] == Wish("CLX5", depth, push_ms)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda leaf: st.lists(leaf) | st.dictionaries(st.sampled_from(["type", "symbol", "depth", "push_ms"]), leaf),
    )
)
def test_any_json_is_understood_or_refused(value: object) -> None:
    try:
        read_request(json.dumps(value), NOTHING, DEFAULT)
    except SocketError as error:
        assert json.loads(error.text())["detail"]
