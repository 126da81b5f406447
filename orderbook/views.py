"""The live page. Everything that moves on it comes over `/ws` and the control API. Floor 4."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from history.queries import symbols as known_symbols
from replay.models import Dataset

DEPTHS = (10, 20, 50, 100, 200)


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
            "rates": [*((rate, f"{_grouped(rate)} records/s") for rate in settings.ALLOWED_RATES), ("max", "max")],
            "default_rate": settings.STREAMER_RATE,
            "depths": sorted({*DEPTHS, settings.DEPTH}),
            "default_depth": settings.DEPTH,
            "push_ms": max(settings.PUSH_MS, 10),
            "may_control": request.user.has_perm("replay.control_replay"),
        },
    )


def _grouped(number: int) -> str:
    """Write a number with narrow spaces between its thousands."""
    return f"{number:,}".replace(",", "\u202f")
