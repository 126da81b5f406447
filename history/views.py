"""The history page and its downloads. Floor 4."""

import re
from typing import Any, Final
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from history import queries
from history.forms import RangeForm, SymbolForm, first_errors
from history.page_charts import draw
from history.rows import row_texts
from history.streams import attachment, csv_lines, json_lines, pieces
from orderbook.book.timestamp import format_ns

RAW_ROWS: Final = 5
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]")


@require_safe
def history(request: HttpRequest) -> HttpResponse:
    """Show a range of a symbol: three charts and the first rows. Auto fill asks for all there is."""
    symbols = queries.symbols()
    if "fill" in request.GET or not request.GET:
        asked_for = SymbolForm(request.GET)
        symbol = asked_for.cleaned_data["symbol"] if asked_for.is_valid() else default_symbol(symbols)
        span = queries.span(symbol)
        if span is not None:
            asked = {"symbol": symbol, "start": format_ns(span.start_ns), "end": format_ns(span.end_ns)}
            return redirect(f"{reverse('history')}?{urlencode(asked)}")
        form = RangeForm(initial={"symbol": symbol})
        return render(request, "history.html", {"form": form, "symbols": symbols, "nothing_stored": True})
    form = RangeForm(request.GET)
    context: dict[str, Any] = {"form": form, "symbols": symbols}
    if form.is_valid():
        context |= _answer(**form.cleaned_data)
    return render(request, "history.html", context, status=200 if form.is_valid() else 400)


@require_safe
def history_csv(request: HttpRequest) -> HttpResponseBase:
    """Download every snapshot of a range as CSV."""
    return _download(request, "csv", "text/csv; charset=utf-8")


@require_safe
def history_jsonl(request: HttpRequest) -> HttpResponseBase:
    """Download every snapshot of a range as a JSON object a line."""
    return _download(request, "jsonl", "application/x-ndjson")


def default_symbol(symbols: list[str]) -> str:
    """Return SYMBOL if it is there, else the first symbol there is, else SYMBOL."""
    return settings.SYMBOL if settings.SYMBOL in symbols or not symbols else symbols[0]


def _answer(symbol: str, start: int, end: int) -> dict[str, Any]:
    decimals = queries.decimals(symbol)
    return {
        "picture": draw(symbol, start, end),
        "raw": [row_texts(symbol, quote, decimals) for quote in queries.history(symbol, start, end, RAW_ROWS)],
        "download_query": urlencode({"symbol": symbol, "start": format_ns(start), "end": format_ns(end)}),
    }


def _download(request: HttpRequest, kind: str, content_type: str) -> HttpResponseBase:
    form = RangeForm(request.GET)
    if not form.is_valid():
        return HttpResponse(first_errors(form), status=400, content_type="text/plain; charset=utf-8")
    symbol, start, end = form.cleaned_data["symbol"], form.cleaned_data["start"], form.cleaned_data["end"]
    make_lines = csv_lines if kind == "csv" else json_lines
    lines = make_lines(symbol, start, end, queries.decimals(symbol))
    return attachment(pieces(lines), content_type, f"{_UNSAFE.sub('_', symbol)}_history.{kind}")
