"""What `/ws` says and understands, besides the books: pure text in, values or text out. Floor 4.

A client sends ``subscribe``, ``update``, ``unsubscribe`` or ``ack``. Every refusal is a SocketError with a code that
programs test and a detail that people read; mostly the connection stays open. docs/websocket.md tells it to users.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Final, NamedTuple

PROTOCOL: Final = 2
MAX_MESSAGE_BYTES: Final = 16 * 1024
MESSAGES_PER_S: Final = 20
MAX_SUBSCRIPTIONS: Final = 32
CHANNELS: Final = ("book", "bbo", "trades", "status")
DEPTH_RANGE: Final = (1, 200)
PUSH_MS_RANGE: Final = (10, 5000)
ACKS_RANGE: Final = (0, 1000)
MAX_SYMBOL: Final = 71  # a DBN symbol has at most 71 characters
_SEQ_RANGE: Final = (0, 2**63 - 1)


class Close(IntEnum):
    """Why the server ends a connection."""

    TOO_BIG = 1009
    SIGNED_OUT = 4001
    TOO_SLOW = 4008
    TOO_MANY_CLIENTS = 4013
    TOO_MANY_MESSAGES = 4029


class SocketError(Exception):
    """A message that cannot be followed, and with which code that ends the connection; None: it does not."""

    def __init__(self, code: str, detail: str, close: Close | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.close = close

    def text(self) -> str:
        """Return the JSON text that tells the client."""
        return json.dumps({"type": "error", "code": self.code, "detail": self.detail})


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client wants to see of one symbol."""

    symbol: str
    depth: int
    push_ms: int
    channels: tuple[str, ...] = ("book",)


class Watch(NamedTuple):
    """Show this from now on."""

    wish: Wish
    instead_of: str | None
    """The symbol whose subscription it takes the place of; None: it is one more."""
    acks: int | None
    """How many messages may be on their way unacknowledged; 0: any number; None: as before."""
    is_anew: bool = False
    """Nothing counts as seen, though the symbol stays."""


class Rest(NamedTuple):
    """Show these no more."""

    symbols: tuple[str, ...]


class Ack(NamedTuple):
    """The client has taken everything up to this message."""

    seq: int
    symbol: str | None


Wishes = Mapping[str, Wish]
Request = Watch | Rest | Ack


def hello(default: Wish) -> str:
    """Return the JSON text of the first message: the protocol, the server's time, and what subscribe falls back on."""
    now_ns = time.time_ns()
    return json.dumps(
        {
            "type": "hello",
            "protocol": PROTOCOL,
            "time": datetime.fromtimestamp(now_ns / 10**9, UTC).isoformat(),
            "time_ns": str(now_ns),
            **_told(default),
            "limits": {
                "message_bytes": MAX_MESSAGE_BYTES,
                "messages_per_s": MESSAGES_PER_S,
                "subscriptions": MAX_SUBSCRIPTIONS,
            },
        }
    )


def ack_of_wish(wish: Wish, acks: int, wishes: Wishes) -> str:
    """Return the JSON text that confirms a subscription, and tells all that hold now."""
    return json.dumps({"type": "ack", **_told(wish), "acks": acks, "symbols": list(wishes)})


def ack_of_rest(default: Wish, acks: int, wishes: Wishes) -> str:
    """Return the JSON text that confirms the end of subscriptions, and tells those that are left."""
    nothing = {**_told(default), "symbol": None, "channels": []}
    return json.dumps({"type": "ack", **nothing, "acks": acks, "symbols": list(wishes)})


def read_request(text: str, wishes: Wishes, default: Wish) -> Request:
    """Return what a client asks for, given what it is shown now.

    ``subscribe`` starts from the defaults, ``update`` from what holds. Raises SocketError for anything that is not one
    of the four requests with values in range.
    """
    request = _json_object(text)
    kind = request.get("type")
    if kind == "ack":
        return Ack(_number(request, "seq", -1, _SEQ_RANGE), _symbol(request, None))
    if kind == "subscribe":
        return _subscribe(request, wishes, default)
    if kind == "update":
        return _update(request, wishes)
    if kind == "unsubscribe":
        symbol = _symbol(request, None)
        return Rest(tuple(wishes) if symbol is None else (_held(symbol, wishes).symbol,))
    raise SocketError("unknown_type", f"type: expected subscribe, update, unsubscribe or ack, found {_shown(kind)}")


def _subscribe(request: dict[str, object], wishes: Wishes, default: Wish) -> Watch:
    wish = _changed(default, request)
    known = wish.symbol in wishes
    if not known and len(wishes) >= MAX_SUBSCRIPTIONS:
        raise SocketError("too_many_symbols", f"one connection has at most {MAX_SUBSCRIPTIONS} subscriptions")
    return Watch(wish, wish.symbol if known else None, _acks(request), is_anew=known)


def _update(request: dict[str, object], wishes: Wishes) -> Watch:
    """With one subscription a symbol may be left out, or be another one, which the subscription moves to."""
    if not wishes:
        raise SocketError("not_subscribed", "update needs a subscription: send subscribe first")
    symbol = _symbol(request, None)
    if len(wishes) == 1:
        now = next(iter(wishes.values()))
    elif symbol is None:
        raise SocketError("which_symbol", f"symbol: expected one of {', '.join(wishes)}, found none")
    else:
        now = _held(symbol, wishes)
    return Watch(_changed(now, request), now.symbol, _acks(request))


def _told(wish: Wish) -> dict[str, Any]:
    return {
        "symbol": wish.symbol,
        "depth": wish.depth,
        "push_ms": wish.push_ms,
        "channels": list(wish.channels),
    }


def _held(symbol: str, wishes: Wishes) -> Wish:
    if symbol not in wishes:
        raise SocketError("not_subscribed", f"symbol: {symbol} is not subscribed: send subscribe first")
    return wishes[symbol]


def _json_object(text: str) -> dict[str, object]:
    try:
        request = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SocketError("bad_json", f"the message is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise SocketError("bad_json", f"expected a JSON object, found {_shown(request)}")
    return request


def _changed(wish: Wish, request: dict[str, object]) -> Wish:
    return replace(
        wish,
        symbol=_symbol(request, wish.symbol),
        depth=_number(request, "depth", wish.depth, DEPTH_RANGE),
        push_ms=_number(request, "push_ms", wish.push_ms, PUSH_MS_RANGE),
        channels=_channels(request, wish.channels),
    )


def _symbol(request: dict[str, object], default: str | None) -> Any:
    if "symbol" not in request:
        return default
    symbol = request["symbol"]
    if not isinstance(symbol, str) or not 0 < len(symbol) <= MAX_SYMBOL or not symbol.isprintable():
        raise SocketError("bad_symbol", f"symbol: expected 1 to {MAX_SYMBOL} characters, found {_shown(symbol)}")
    return symbol


def _channels(request: dict[str, object], default: tuple[str, ...]) -> tuple[str, ...]:
    if "channels" not in request:
        return default
    channels = request["channels"]
    if not isinstance(channels, list) or not channels or any(name not in CHANNELS for name in channels):
        raise SocketError("bad_channels", f"channels: expected some of {', '.join(CHANNELS)}, found {_shown(channels)}")
    return tuple(name for name in CHANNELS if name in channels)


def _acks(request: dict[str, object]) -> int | None:
    return _number(request, "acks", 0, ACKS_RANGE) if "acks" in request else None


def _number(request: dict[str, object], name: str, default: int, allowed: tuple[int, int]) -> int:
    value = request.get(name, default)
    low, high = allowed
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SocketError(
            "out_of_range", f"{name}: expected a whole number from {low} to {high}, found {_shown(value)}"
        )
    return value


def _shown(value: object) -> str:
    try:
        return json.dumps(value)[:80]
    except RecursionError:  # a few calls deeper than where it could just be read
        return "a value that is nested too deep"
