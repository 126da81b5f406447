"""A report for people: a headline and tables of words. Floor 1.

The terminal writes the tables as aligned text, the admin as HTML; both show the same facts in the same order.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from orderbook.book.price import format_units
from orderbook.quality.report import BestReport, Evidence, InstrumentReport, Point, Report, Span, StepsReport, busiest

LONGEST_SHOWN: Final = 10
WIDTH: Final = 80
_GAP: Final = "  "
_LEAST: Final = 10  # of the last column, however wide the others are; words are not broken


class Table(NamedTuple):
    """Rows of words under a title; ``head`` is empty where the rows explain themselves."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    @property
    def numeric(self) -> list[bool]:
        """Say of each column whether it holds numbers only: those stand to the right."""
        return [all(map(_is_number, column)) for column in zip(*self.rows, strict=True)]

    @property
    def cells(self) -> list[list[tuple[str, bool]]]:
        """Return the rows with each word beside whether its column is numeric."""
        return [list(zip(row, self.numeric, strict=True)) for row in self.rows]


def headline(report: Report) -> str:
    """Say in one sentence whether the recording holds, and by which checks."""
    checks = report["checks"]
    books = "both books" if checks["book"] == "both" else f"the {checks['book']} book"
    if report["violation"] is None:
        often = f"at every {checks['every']:,} event ends" if checks["every"] > 1 else "at every event end"
        return f"{report['file']}: {books} checked {checks['made']:,} times, {often}"
    found = report["violation"]
    book = "the books differ" if found["book"] == "both" else f"the {found['book']} book contradicts itself"
    place = "" if found["record"] is None else f" at record {found['record']:,}"
    return f"{report['file']}: {book}{place}: {found['text']}"


def tables(report: Report, instruments: int) -> list[Table]:
    """Return the tables of a report, what matters most first; of the busiest instruments only so many."""
    shown = busiest(report, instruments)
    found = [
        _difference(report),
        _counts(report),
        _anomalies(report),
        _steps("Sequence steps back", report["sequence_steps_back"], ""),
        _steps("Capture time steps back", report["ts_recv_steps_back"], "_ts_recv"),
        _crossings(shown),
        _longest_crossed(shown),
        Table("Longest idle gaps", ("since", "for", "records"), [_span(span) for span in report["idle"]["longest"]]),
        _instruments(shown, report["instrument_count"]),
        _hashes(shown, report["hash"]),
    ]
    return [table for table in found if table.rows]


def as_text(table: Table) -> str:
    """Write a table as aligned lines, numbers to the right; the last column is wrapped to the terminal's width."""
    rows = [table.head, *table.rows] if table.head else table.rows
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [">" if is_numeric else "<" for is_numeric in table.numeric]
    indent = sum(width + len(_GAP) for width in widths[:-1])
    lines = [table.title] if table.title else []
    for row in rows:
        *cells, last = (f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
        first, *more = textwrap.wrap(last.rstrip(), max(WIDTH - indent, _LEAST), break_long_words=False) or [""]
        lines.append(_GAP.join([*cells, first if sides[-1] == "<" else last]))
        lines += [" " * indent + line for line in more]
    return "\n".join(line.rstrip() for line in lines)


def _difference(report: Report) -> Table:
    found = report["violation"]
    pairs = [] if found is None else [("kernel", found["kernel"]), ("reference", found["reference"])]
    rows = [(book, _evidence(row) if row else "none") for book, row in pairs if any(each for _, each in pairs)]
    return Table("The first difference", (), rows)


def _evidence(row: Evidence) -> str:
    return ", ".join(f"{name} {row[name]}" for name in sorted(row, key=lambda name: name != "record"))


def _counts(report: Report) -> Table:
    idle_s = format_units(int(report["idle"]["longer_than_ns"]), 9, 0)
    counts = {
        "records": report["records"],
        "events": report["events"],
        "instruments": report["instrument_count"],
        "BBO changes": report["bbo_changes"],
        "trades": report["trades"]["count"],
        "size traded": report["trades"]["size"],
        "anomalies": report["anomaly_count"],
        "sequence steps back": report["sequence_steps_back"]["count"],
        "capture time steps back": report["ts_recv_steps_back"]["count"],
        f"idle gaps over {idle_s} s": report["idle"]["count"],
        "crossed intervals": report["crossed_count"],
        "locked intervals": report["locked_count"],
    }
    return Table("", (), [(name, f"{count:,}") for name, count in counts.items()])


def _anomalies(report: Report) -> Table:
    frequent = sorted(report["anomalies"].items(), key=lambda each: (-each[1]["count"], each[0]))
    rows = [(kind, f"{found['count']:,}", _point(found["first"])) for kind, found in frequent if found["count"]]
    return Table("Anomalies", ("kind", "count", "first at"), rows)


def _point(point: Point | None) -> str:
    if point is None:
        return ""
    return f"record {point['record']:,}, order {point['order_id']}, {point['symbol']}, {point['ts_event'] or 'no time'}"


def _steps(title: str, steps: StepsReport, suffix: str) -> Table:
    rows = [
        (
            f"{each['publisher_id']}",
            f"{each['channel_id']}",
            f"{each['count']:,}",
            _first_step(each["first"], suffix),
        )
        for each in steps["channels"]
    ]
    return Table(title, ("publisher", "channel", "count", "first at"), rows)


def _first_step(first: Mapping[str, object], suffix: str) -> str:
    return f"record {first['record']:,}: {first['from' + suffix]} to {first['to' + suffix]}"


def _crossings(instruments: list[InstrumentReport]) -> Table:
    rows = [
        (each["symbol"], state, f"{spans['count']:,}", _duration(int(spans["total_ns"])))
        for each in instruments
        for state, spans in (("crossed", each["crossed"]), ("locked", each["locked"]))
        if spans["count"]
    ]
    return Table("Crossed and locked at event ends", ("symbol", "state", "intervals", "in all"), rows)


def _longest_crossed(instruments: list[InstrumentReport]) -> Table:
    found = [(int(span["ns"]), each["symbol"], span) for each in instruments for span in each["crossed"]["longest"]]
    longest = sorted(found, key=lambda each: -each[0])[:LONGEST_SHOWN]
    rows = [(symbol, *_span(span)) for _, symbol, span in longest]
    return Table("Longest crossed", ("symbol", "since", "for", "records"), rows)


def _span(span: Span) -> tuple[str, str, str]:
    end = "the end" if span["end_record"] is None else f"{span['end_record']:,}"
    return _since(span), _duration(int(span["ns"])), f"{span['begin_record']:,} to {end}"


def _since(span: Span) -> str:
    """Write when it began, to the millisecond: the record's number tells it exactly."""
    return f"{span['begin_ts_recv'][:23]}Z" if span["begin_ts_recv"] else "no time"


def _instruments(instruments: list[InstrumentReport], count: int) -> Table:
    rows = [
        (
            each["symbol"],
            f"{each['records']:,}",
            f"{each['orders']:,}",
            f"{each['levels']['bid']:,} / {each['levels']['ask']:,}",
            f"{_best(each['best_bid'])} / {_best(each['best_ask'])}",
            each["state"] if each["at_event_end"] else f"{each['state']}, within an event",
        )
        for each in instruments
    ]
    title = "Books at the end" if len(rows) == count else f"Books at the end, {len(rows):,} busiest of {count:,}"
    return Table(title, ("symbol", "records", "orders", "levels", "best bid / ask", "state"), rows)


def _best(best: BestReport | None) -> str:
    return f"{best['sz']:,} x {best['px_f']}" if best else "-"


def _hashes(instruments: list[InstrumentReport], all_books: str | None) -> Table:
    rows = [
        (each["symbol"], f"{each['publisher_id']}", f"{each['instrument_id']}", each["hash"]) for each in instruments
    ]
    if all_books:
        rows.append(("all books", "", "", all_books))
    return Table("Hashes", ("symbol", "publisher", "instrument", "state hash"), rows)


def _duration(ns: int) -> str:
    """Write how long something lasts, in the unit that fits.

    >>> _duration(1_500), _duration(12_345_678), _duration(59_000_000_000), _duration(3_723_004_000_000)
    ('1 us', '12 ms', '59.000 s', '1:02:03.004')
    """
    if ns < 10**6:
        return f"{ns // 10**3} us"
    if ns < 10**9:
        return f"{ns // 10**6} ms"
    seconds, ms = divmod(ns // 10**6, 1000)
    if seconds < 60:
        return f"{seconds}.{ms:03} s"
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}"


def _is_number(text: str) -> bool:
    return not text or text.replace(",", "").isdigit()
