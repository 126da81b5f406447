"""REST reads of the history: symbols, latest, range, history, and the feed file. Floor 4.

Rows are written as text with exact digits, so the answers are not serialised a second time. Wrong
parameters answer 400 with the parameter's name, a symbol without data 404.
"""

from typing import Any, Final

from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from ninja import Router
from ninja.errors import HttpError

from history import queries
from history.forms import DEFAULT_LIMIT, MAX_LIMIT, HistoryForm, SymbolForm, first_errors
from history.rows import row_json
from history.streams import attachment, file_pieces, whole_lines
from orderbook.book.timestamp import format_iso_us
from replay.auth import READ_AUTH

router = Router(auth=READ_AUTH)

NO_DATA: Final = "No data for symbol"

_SYMBOL: Final = {"name": "symbol", "in": "query", "required": True, "schema": {"type": "string"}, "example": "CLX5"}
_TIME: Final = {"in": "query", "required": True, "schema": {"type": "string", "format": "date-time"}}
_HISTORY: Final = [
    _SYMBOL,
    {"name": "start", **_TIME, "example": "2025-09-24T19:30:00.000000000Z"},
    {"name": "end", **_TIME, "example": "2025-09-24T20:30:00Z"},
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    },
]


@router.get("/symbols")
def list_symbols(request: HttpRequest) -> list[str]:
    """Every symbol that is registered or has snapshots."""
    return queries.symbols()


@router.get("/latest", openapi_extra={"parameters": [_SYMBOL]})
def latest(request: HttpRequest) -> HttpResponse:
    """The newest snapshot of a symbol, by market time."""
    symbol = _valid(SymbolForm(request.GET))["symbol"]
    quote = queries.latest(symbol)
    if quote is None:
        raise HttpError(404, NO_DATA)
    return _json(row_json(symbol, quote, queries.decimals(symbol)))


@router.get("/range", openapi_extra={"parameters": [_SYMBOL]})
def stored_range(request: HttpRequest) -> dict[str, Any]:
    """The first and last time of a symbol's snapshots, and how many there are."""
    span = queries.span(_valid(SymbolForm(request.GET))["symbol"])
    if span is None:
        raise HttpError(404, NO_DATA)
    return {
        "start_ts": format_iso_us(span.start_ns),
        "end_ts": format_iso_us(-(-span.end_ns // 1000) * 1000),  # rounded up: a query to there has the last row
        "rows": span.rows,
        "start_ts_ns": str(span.start_ns),
        "end_ts_ns": str(span.end_ns),
    }


@router.get("/history", openapi_extra={"parameters": _HISTORY})
def history(request: HttpRequest) -> HttpResponse:
    """The first ``limit`` snapshots of a range (both ends included), in time order."""
    asked = _valid(HistoryForm(request.GET))
    symbol = asked["symbol"]
    if not queries.is_known(symbol):
        raise HttpError(404, NO_DATA)
    decimals = queries.decimals(symbol)
    quotes = queries.history(symbol, asked["start"], asked["end"], asked["limit"])
    return _json(f"[{','.join(row_json(symbol, quote, decimals) for quote in quotes)}]")


@router.api_operation(["GET", "HEAD"], "/feed")
def feed(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """The file of all books that the engine wrote, a JSON object a line. HEAD says whether there is one."""
    size = whole_lines(settings.FEED_PATH)
    if size is None:
        raise HttpError(404, "There is no feed file yet: the engine writes it while a replay runs")
    return attachment(file_pieces(settings.FEED_PATH, size), "application/x-ndjson", "snapshots_feed.jsonl", size)


def _valid(form: forms.Form) -> dict[str, Any]:
    if not form.is_valid():
        raise HttpError(400, first_errors(form))
    return form.cleaned_data


def _json(text: str) -> HttpResponse:
    return HttpResponse(text, content_type="application/json")
