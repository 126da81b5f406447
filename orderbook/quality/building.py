"""The making of the quality report, from a pass that is over. Floor 1."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from orderbook.book.anomaly import Anomaly
from orderbook.book.digest import market_hash, state_hash
from orderbook.book.mbo import MboArray, Side, book_key
from orderbook.book.price import decimals_of, format_price, infer_tick
from orderbook.book.snapshot import BookState, Level, book_state
from orderbook.quality.continuity import sequence_step, time_step
from orderbook.quality.report import VERSION, AnomalyReport, BestReport, InstrumentReport, Point, Report
from orderbook.quality.spans import instant
from orderbook.quality.verification import Outcome


def make_report(outcome: Outcome) -> Report:
    """Describe what was found. Cost: O(orders) for the hashes."""
    file, tally, rebuild = outcome.file, outcome.tally, outcome.rebuild
    anomalies = _anomalies(outcome)
    is_sound = outcome.violation is None
    return {
        "version": VERSION,
        "ok": is_sound,
        "violation": outcome.violation,
        "file": file.name,
        "format": file.format,
        "sha256": file.sha256,
        "checks": {"book": outcome.book, "every": outcome.every, "made": rebuild.audit.checks},
        "records": tally.records.total(),
        "events": rebuild.audit.events,
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
        "instruments": list(_instruments(outcome)) if is_sound else [],
        "hash": market_hash(rebuild.market.books.items()) if is_sound else None,
    }


def _anomalies(outcome: Outcome) -> dict[str, AnomalyReport]:
    counts: Counter[str] = Counter()
    for book in outcome.rebuild.market.books.values():
        counts.update(book.anomalies)
    records, symbols = outcome.file.records, outcome.file.symbols
    first = {kind: _point(records, number, symbols) for kind, number in outcome.rebuild.audit.first.items()}
    return {kind.value: {"count": counts[kind.value], "first": first.get(kind.value)} for kind in Anomaly}


def _point(records: MboArray, number: int, symbols: Mapping[int, str]) -> Point:
    """Describe one record of a stream."""
    record = records[number]
    instrument_id = int(record["instrument_id"])
    return {
        "record": number,
        "order_id": str(record["order_id"]),
        "sequence": str(record["sequence"]),
        "ts_event": instant(int(record["ts_event"])),
        "ts_event_ns": str(record["ts_event"]),
        "publisher_id": int(record["publisher_id"]),
        "instrument_id": instrument_id,
        "symbol": symbols.get(instrument_id, str(instrument_id)),
    }


def _instruments(outcome: Outcome) -> Iterator[InstrumentReport]:
    symbols, crossing = outcome.file.symbols, outcome.tally.crossing
    for tag, records in sorted(outcome.tally.records.items()):
        key = book_key(tag)
        book = outcome.rebuild.market.book(key)
        bids, asks = book.levels(Side.BID), book.levels(Side.ASK)
        decimals = decimals_of(infer_tick(np.concatenate([bids[:, 0], asks[:, 0]])) or 1)
        bbo = book.bbo()
        yield {
            "publisher_id": key.publisher_id,
            "instrument_id": key.instrument_id,
            "symbol": symbols.get(key.instrument_id, str(key.instrument_id)),
            "records": records,
            "orders": len(book),
            "levels": {"bid": len(bids), "ask": len(asks)},
            "best_bid": _best(bbo.bid, decimals),
            "best_ask": _best(bbo.ask, decimals),
            "state": book_state(bbo).value,
            "at_event_end": book.at_event_end,
            "crossed": crossing.spans(tag, BookState.CROSSED).report(),
            "locked": crossing.spans(tag, BookState.LOCKED).report(),
            "hash": state_hash(book),
        }


def _best(level: Level | None, decimals: int) -> BestReport | None:
    if level is None:
        return None
    price, size, count = level
    return {"px": str(price), "px_f": format_price(price, decimals), "sz": size, "ct": count}
