"""Builders of stored snapshots."""

from history.models import Instrument, Snapshot

CENT = 10_000_000
TS = 1_758_742_200_000_000_000  # 2025-09-24T19:30:00Z
SECOND = 10**9


def instrument(symbol: str = "CLX5", tick_size: int = CENT) -> Instrument:
    return Instrument.objects.create(symbol=symbol, instrument_id=1, publisher_id=1, tick_size=tick_size)


def snapshot(
    index: int = 0,
    *,
    symbol: str = "CLX5",
    ts_event: int | None = None,
    bid: int | None = 6483 * CENT,
    ask: int | None = 6484 * CENT,
    bid_sz: int = 5,
    ask_sz: int = 7,
) -> Snapshot:
    """Return an unsaved snapshot, ``index`` seconds after TS."""
    moment = TS + index * SECOND if ts_event is None else ts_event
    return Snapshot(
        symbol=symbol,
        ts_event=moment,
        ts_recv=moment + 1,
        sequence=index,
        best_bid_px=bid,
        best_bid_sz=bid_sz if bid is not None else 0,
        best_bid_ct=2 if bid is not None else 0,
        best_ask_px=ask,
        best_ask_sz=ask_sz if ask is not None else 0,
        best_ask_ct=3 if ask is not None else 0,
    )


def store(*rows: Snapshot) -> None:
    Snapshot.objects.bulk_create(rows)
