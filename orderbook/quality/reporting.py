"""The report of a pass that is over. Floor 1."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from orderbook.book.anomaly import Anomaly
from orderbook.book.digest import market_hash, state_hash
from orderbook.book.mbo import Side
from orderbook.book.price import decimals_of, format_price, infer_tick
from orderbook.book.snapshot import BookState, Level, book_state
from orderbook.quality.continuity import sequence_step, time_step
from orderbook.quality.difference import Books
from orderbook.quality.report import AnomalyReport, BestReport, InstrumentReport, Report, Violation, point
from orderbook.quality.request import How, Source
from orderbook.quality.tally import Tally


def make_report(source: Source, how: How, books: Books, tally: Tally, violation: Violation | None) -> Report:
    """Describe what was found. Cost: O(orders) for the hashes."""
    anomalies = _anomalies(source, books)
    is_sound = violation is None
    return {
        "ok": is_sound,
        "violation": violation,
        "file": source.file,
        "format": source.format,
        "sha256": source.sha256,
        "checks": {"book": how.book, "every": how.every, "made": books.audit.checks},
        "records": tally.records.total(),
        "events": books.audit.events,
        "bbo_changes": tally.bbo_changes,
        "trades": tally.trades,
        "anomaly_count": sum(each["count"] for each in anomalies.values()),
        "anomalies": anomalies,
        "sequence_steps_back": tally.continuity.sequence.report(sequence_step),
        "ts_recv_steps_back": tally.continuity.ts_recv.report(time_step),
        "idle": tally.continuity.idle_report(),
        "crossed_count": tally.crossing.count(BookState.CROSSED),
        "locked_count": tally.crossing.count(BookState.LOCKED),
        "instrument_count": len(tally.records),
        "instruments": list(_instruments(source, books, tally)) if is_sound else [],
        "hash": market_hash(books.market.books.items()) if is_sound else None,
    }


def _anomalies(source: Source, books: Books) -> dict[str, AnomalyReport]:
    counts: Counter[str] = Counter()
    for book in books.market.books.values():
        counts.update(book.anomalies)
    first = {kind: point(source.records, number, source.symbols) for kind, number in books.audit.first.items()}
    return {kind.value: {"count": counts[kind.value], "first": first.get(kind.value)} for kind in Anomaly}


def _instruments(source: Source, books: Books, tally: Tally) -> Iterator[InstrumentReport]:
    for key, records in sorted(tally.records.items()):
        book = books.market.book(key)
        bids, asks = book.levels(Side.BID), book.levels(Side.ASK)
        decimals = decimals_of(infer_tick(np.concatenate([bids[:, 0], asks[:, 0]])) or 1)
        bbo = book.bbo()
        yield {
            "publisher_id": key.publisher_id,
            "instrument_id": key.instrument_id,
            "symbol": source.symbols.get(key.instrument_id, str(key.instrument_id)),
            "records": records,
            "orders": len(book),
            "levels": {"bid": len(bids), "ask": len(asks)},
            "best_bid": _best(bbo.bid, decimals),
            "best_ask": _best(bbo.ask, decimals),
            "state": book_state(bbo).value,
            "at_event_end": book.at_event_end,
            "crossed": tally.crossing.spans(key, BookState.CROSSED).report(),
            "locked": tally.crossing.spans(key, BookState.LOCKED).report(),
            "hash": state_hash(book),
        }


def _best(level: Level | None, decimals: int) -> BestReport | None:
    if level is None:
        return None
    price, size, count = level
    return {"px": str(price), "px_f": format_price(price, decimals), "sz": size, "ct": count}
