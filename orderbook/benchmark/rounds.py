"""The benchmark of the books: what is timed, in which order, and what must be right for a time to count. Floor 1.

Machines are never equally busy for long, so the contenders take turns within one run and only their medians are
compared. Garbage collection is off while a clock runs. A fast wrong run is no run: every run must leave the books as
an untimed run left them, and both kinds of books must agree. Makes no records (``orderbook.benchmark.records``,
``replay.simulator``).
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np

from orderbook.book.digest import market_hash
from orderbook.book.kernel_book import clock_cost_ns
from orderbook.book.kernel_market import KernelMarket
from orderbook.book.market import BookKind, make_market, split_by_book
from orderbook.book.mbo import BookKey, MboArray
from orderbook.book.protocol import Market

BATCH_RECORDS: Final = 65_536
REFERENCE_RECORDS: Final = 200_000
"""Of each round: the reference book takes a second for a million, and a round should be short."""

PROOF_RECORDS: Final = 1_000_000
"""So many records are rebuilt by both books, once and untimed."""

_MEMORY_BATCH: Final = 1024
_CLOCK_SAMPLES: Final = 100_000
_PERCENTILES: Final = {"apply_p50_ns": 50, "apply_p99_ns": 99, "apply_p999_ns": 99.9, "apply_max_ns": 100}

Progress = Callable[[], Any]
"""Told when a step is done."""


class WrongResultError(Exception):
    """A timed run did not leave the books that it should have left."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left: equal for two runs over the same records, whichever books took them."""

    state_hash: str
    anomalies: dict[str, int]
    ends: dict[BookKey, tuple[int, int, int]]
    """For each book ts_event, ts_recv and sequence of the last record it applied."""


class Memory(NamedTuple):
    """What the arena of the kernel takes for each resting order, bytes."""

    worst: float
    """At the moment of the most resting orders, or just behind a growth since half as many rested."""
    at_most: float
    resting_orders_max: int
    arena_bytes: int


Figures = dict[str, list[float]]
"""For each figure its value in every round."""


def batches(records: MboArray, size: int = BATCH_RECORDS) -> list[MboArray]:
    """Return a stream cut into batches, which are views."""
    return [records[start : start + size] for start in range(0, len(records), size)]


def apply_timed(kind: BookKind, parts: list[MboArray]) -> tuple[float, Market]:
    """Apply batches to a new market; return the time of all applies, s, and the market."""
    market = make_market(kind)
    with _no_collection():
        began = time.perf_counter()
        for part in parts:
            market.apply(part)
        return time.perf_counter() - began, market


def outcome_of(market: Market) -> Outcome:
    """Return what a run left. Cost: O(orders)."""
    anomalies: dict[str, int] = {}
    for book in market.books.values():
        for kind, count in book.anomalies.items():
            anomalies[kind] = anomalies.get(kind, 0) + count
    ends = {key: (book.ts_event, book.ts_recv, book.sequence) for key, book in market.books.items()}
    return Outcome(market_hash(market.books.items()), anomalies, ends)


def require_all_applied(records: MboArray, outcome: Outcome) -> None:
    """Raise WrongResultError unless every book stands at the last record of the stream that is its own."""
    lasts = {key: part[-1] for key, part in split_by_book(records)}
    received = {
        key: (int(last["ts_event"]), int(last["ts_recv"]), int(last["sequence"])) for key, last in lasts.items()
    }
    if outcome.ends != received:
        odd = next(key for key in received | outcome.ends if received.get(key) != outcome.ends.get(key))
        raise WrongResultError(
            f"the last record of {odd}: expected (ts_event, ts_recv, sequence) {received.get(odd)}, "
            f"found {outcome.ends.get(odd)}"
        )


def require_same(expected: Outcome, found: Outcome, run: str) -> None:
    """Raise WrongResultError unless a run left what it should have left."""
    for what in ("anomalies", "ends", "state_hash"):
        if getattr(found, what) != getattr(expected, what):
            raise WrongResultError(f"{run}: expected {what} {getattr(expected, what)}, found {getattr(found, what)}")


def prove(records: MboArray) -> Outcome:
    """Return what both books leave after the same records. Raises WrongResultError where they differ."""
    _, reference = apply_timed("reference", batches(records))
    _, kernel = apply_timed("kernel", batches(records))
    expected = outcome_of(reference)
    require_all_applied(records, expected)
    require_same(expected, outcome_of(kernel), f"kernel and reference over {len(records)} records")
    return expected


def outcome_over(records: MboArray, proof_records: int = PROOF_RECORDS) -> Outcome:
    """Return what the kernel must leave after a stream, whose beginning at least both books agree on.

    Raises WrongResultError where they do not. Cost: what the reference book takes for the beginning.
    """
    proven = prove(records[:proof_records])
    if len(records) <= proof_records:
        return proven
    _, market = apply_timed("kernel", batches(records))
    outcome = outcome_of(market)
    require_all_applied(records, outcome)
    return outcome


def run_rounds(records: MboArray, rounds: int, expected: Outcome, progress: Progress = lambda: None) -> Figures:
    """Return throughput, latency and clock cost of every round; the contenders take turns within each.

    ``expected`` is what the kernel must leave. The input was touched before: nothing timed waits for its pages.
    Raises WrongResultError.
    """
    parts, reference_records = batches(records), records[:REFERENCE_RECORDS]
    reference_parts = batches(reference_records)
    expected_of_reference = expected if len(records) <= REFERENCE_RECORDS else prove(reference_records)
    price_sum = int(records["price"].sum())

    figures: Figures = {}
    for round_ in range(1, rounds + 1):
        seconds, market = apply_timed("kernel", parts)
        require_same(expected, outcome_of(market), f"kernel, round {round_}")
        _note(figures, "kernel_records_per_s", len(records) / seconds)

        seconds, market = apply_timed("reference", reference_parts)
        require_same(expected_of_reference, outcome_of(market), f"reference, round {round_}")
        _note(figures, "reference_records_per_s", len(reference_records) / seconds)

        seconds, _ = apply_timed("kernel", reference_parts)
        _note(figures, "kernel_same_records_per_s", len(reference_records) / seconds)

        seconds = _scan_timed(records, price_sum)
        _note(figures, "memory_scan_records_per_s", len(records) / seconds)

        for name, value in latencies_ns(records, expected).items():
            _note(figures, name, value)
        _note(figures, "clock_cost_ns", median(clock_cost_ns(_CLOCK_SAMPLES).tolist()))
        progress()
    return figures


def latencies_ns(records: MboArray, expected: Outcome) -> dict[str, int]:
    """Return exact percentiles of what applying one record took, growth and a reading of the clock included.

    ``expected`` is what the run must leave. Raises WrongResultError.
    """
    market = KernelMarket()
    with _no_collection():
        spent = market.apply_timed(records)
    require_same(expected, outcome_of(market), "the run that times each record")
    values = np.percentile(spent, list(_PERCENTILES.values()), method="higher")
    return dict(zip(_PERCENTILES, map(int, values), strict=True))


def memory_of(records: MboArray) -> Memory:
    """Return what a market takes on its way through a stream, looked at every 1,024 records."""
    market = KernelMarket()
    grown: list[tuple[int, int]] = []
    most = (0, 0)  # resting orders, bytes
    for part in batches(records, _MEMORY_BATCH):
        before = market.arena.nbytes
        market.apply(part)
        now = (sum(map(len, market.books.values())), market.arena.nbytes)
        if now[1] > before:
            grown.append(now)
        if now[0] > most[0]:
            most = now
    orders_max, arena_bytes = most
    if not orders_max:
        return Memory(0.0, 0.0, 0, market.arena.nbytes)
    # Before, few orders carry what the books themselves take.
    ratios = [taken / orders for orders, taken in [*grown, most] if 2 * orders >= orders_max]
    return Memory(max(ratios), arena_bytes / orders_max, orders_max, arena_bytes)


def _note(figures: Figures, name: str, value: float) -> None:
    figures.setdefault(name, []).append(value)


def _scan_timed(records: MboArray, expected_sum: int) -> float:
    """Return how long it takes to read one field of every record, s: what no book that sees them all goes below."""
    prices = records["price"]
    with _no_collection():
        began = time.perf_counter()
        found = int(prices.sum())
        seconds = time.perf_counter() - began
    if found != expected_sum:
        raise WrongResultError(f"memory scan: expected the sum {expected_sum}, found {found}")
    return seconds


@contextmanager
def _no_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
