"""The three charts of the history page, from stored snapshots. Floor 4."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from history import queries
from history.charts.chart import Chart, build_chart
from history.charts.geometry import Series
from orderbook.book.mbo import UNDEF_PRICE
from orderbook.book.price import SCALE_DIGITS, decimals_of, format_price, format_units

MOST_ROWS: Final = 200_000
"""Snapshots that one page draws; a longer range is drawn to there, and the page says so."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The charts of a range, and how much of it they show."""

    charts: list[Chart]
    rows: int
    drawn: int


def draw(symbol: str, start_ns: int, end_ns: int) -> Picture:
    """Draw spread, mid price and top-of-book size of a range. Cost: O(rows), at most MOST_ROWS."""
    columns = queries.columns(symbol, start_ns, end_ns, MOST_ROWS)
    rows = len(columns) if len(columns) < MOST_ROWS else queries.count(symbol, start_ns, end_ns)
    tick = queries.tick(symbol)
    decimals = decimals_of(tick)
    times = columns["ts_event"].astype(np.int64)
    has_bid, has_ask = columns["bid_px"] != UNDEF_PRICE, columns["ask_px"] != UNDEF_PRICE
    both = has_bid & has_ask
    # The middle stays a whole number by being drawn doubled.
    bid, ask = np.where(both, columns["bid_px"], 0), np.where(both, columns["ask_px"], 0)

    def price_text(price: int) -> str:
        return format_price(price, decimals)

    def half_price_text(doubled: int) -> str:
        return format_units(doubled * 5, SCALE_DIGITS + 1, decimals)

    charts = [
        build_chart("spread", "Spread", times, [Series("Spread", ask - bid, both)], price_text, tick),
        build_chart("mid", "Mid price", times, [Series("Mid", bid + ask, both)], half_price_text, tick),
        build_chart(
            "size",
            "Top-of-book size",
            times,
            [
                Series("Bid", columns["bid_sz"].astype(np.int64), has_bid),
                Series("Ask", columns["ask_sz"].astype(np.int64), has_ask),
            ],
            str,
        ),
    ]
    return Picture(charts, rows, len(columns))
