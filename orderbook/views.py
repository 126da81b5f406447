"""The live page. Everything that moves on it comes over `/ws` and the control API. Floor 4."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from history.queries import symbols as known_symbols
from replay.models import Dataset

DEPTHS = (10, 20, 50, 100, 200)
MARKET_TIMES = (0.1, 1, 10, 100, 1000, 10_000)  # times as fast as it was recorded


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """Show the live book and, to those who may, the replay control."""
    symbols = known_symbols() or [settings.SYMBOL]
    asked = request.GET.get("symbol", settings.SYMBOL)
    return render(
        request,
        "live.html",
        {
            "symbols": symbols,
            "symbol": asked if asked in symbols else symbols[0],
            "datasets": [
                (dataset.name, f"{dataset.name} · {_grouped(dataset.records)} records")
                for dataset in Dataset.objects.filter(state=Dataset.State.READY)
            ],
            "pace_groups": _pace_groups(),
            "default_pace": str(settings.STREAMER_RATE),
            "depths": sorted({*DEPTHS, settings.DEPTH}),
            "default_depth": settings.DEPTH,
            "push_ms": max(settings.PUSH_MS, 10),
            "may_control": request.user.has_perm("replay.control_replay"),
        },
    )


def _pace_groups() -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the paces on offer by kind: the value as ``static/js/paces.js`` reads it, and its text."""
    rates = [(str(rate), f"{_grouped(rate)} records/s") for rate in settings.ALLOWED_RATES]
    times = [(f"{times}x", f"{_grouped(times)}× market time") for times in MARKET_TIMES]
    return [("Records per second", rates), ("Market time", times)]


def _grouped(number: float) -> str:
    """Write a number with narrow spaces between its thousands."""
    return f"{number:,}".replace(",", "\u202f")
