"""What `/ws` says and understands, besides the books: pure text in, values or text out. Floor 4.

A client sends ``subscribe``, ``update`` or ``unsubscribe``. Every refusal is a SocketError with a code that
programs test and a detail that people read; the connection stays open.
"""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal

PROTOCOL: Final = 1
MAX_MESSAGE_BYTES: Final = 16 * 1024
DEPTH_RANGE: Final = (1, 200)
PUSH_MS_RANGE: Final = (10, 5000)
MAX_SYMBOL: Final = 71  # a DBN symbol has at most 71 characters


class SocketError(Exception):
    """A message that cannot be followed."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail

    def text(self) -> str:
        """Return the JSON text that tells the client."""
        return json.dumps({"type": "error", "code": self.code, "detail": self.detail})


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client wants to see. No symbol means that it wants nothing now."""

    symbol: str | None
    depth: int
    push_ms: int

    def ack(self) -> str:
        """Return the JSON text that confirms the wish."""
        return json.dumps({"type": "ack", "symbol": self.symbol, "depth": self.depth, "push_ms": self.push_ms})


def hello(default: Wish) -> str:
    """Return the JSON text of the first message: the protocol, the server's time, and what subscribe falls back on."""
    return json.dumps(
        {
            "type": "hello",
            "protocol": PROTOCOL,
            "time": datetime.now(UTC).isoformat(),
            "symbol": default.symbol,
            "depth": default.depth,
            "push_ms": default.push_ms,
        }
    )


def read_request(text: str, now: Wish, default: Wish) -> tuple[Literal["watch", "rest"], Wish]:
    """Return what to do and the wish that follows from a client's message.

    ``subscribe`` starts from the defaults, ``update`` from what holds now. Raises SocketError for anything
    that is not one of the three requests with values in range.
    """
    request = _json_object(text)
    kind = request.get("type")
    if kind == "subscribe":
        return "watch", _changed(default, request)
    if kind == "update":
        if now.symbol is None:
            raise SocketError("not_subscribed", "update needs a subscription: send subscribe first")
        return "watch", _changed(now, request)
    if kind == "unsubscribe":
        return "rest", replace(now, symbol=None)
    raise SocketError("unknown_type", f"type: expected subscribe, update or unsubscribe, found {_shown(kind)}")


def _json_object(text: str) -> dict[str, object]:
    try:
        request = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SocketError("bad_json", f"the message is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise SocketError("bad_json", f"expected a JSON object, found {_shown(request)}")
    return request


def _changed(wish: Wish, request: dict[str, object]) -> Wish:
    symbol = request.get("symbol", wish.symbol)
    if not isinstance(symbol, str) or not 0 < len(symbol) <= MAX_SYMBOL or not symbol.isprintable():
        raise SocketError("bad_symbol", f"symbol: expected 1 to {MAX_SYMBOL} characters, found {_shown(symbol)}")
    return Wish(
        symbol,
        _number(request, "depth", wish.depth, DEPTH_RANGE),
        _number(request, "push_ms", wish.push_ms, PUSH_MS_RANGE),
    )


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
