"""What `manage.py up` shows: one block at the start, then one line a second. Floor 5."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import TextIO

from orderbook.live import EngineStatus
from replay.streamer.messages import ReplayState, StreamerStatus


def opening_block(url: str, lines: Mapping[str, str], warnings: list[str]) -> str:
    """Return the block: the address first, then what else one needs to know, then what one should worry about."""
    width = max(len(name) for name in lines)
    rows = [f"  {name:<{width}}  {value}" for name, value in lines.items()]
    rule = "-" * 72
    return "\n".join([rule, f"  Batonic is at {url}", "", *rows, *(f"  WARNING: {text}" for text in warnings), rule])


def status_line(streamer: StreamerStatus | None, engine: EngineStatus | None, symbol: str) -> str:
    """Return where the replay is, how fast it goes, the best bid and ask, and what is stored."""
    return "   ".join([_replay_part(streamer), *_book_part(engine, symbol)])


def _replay_part(streamer: StreamerStatus | None) -> str:
    if streamer is None:
        return "streamer: no sign of life"
    if streamer["state"] == ReplayState.IDLE:
        return "no replay"
    position, records = streamer["position"], streamer["records"]
    percent = f" ({position / records:.0%})" if records else ""
    return (
        f"{streamer['dataset']} {streamer['state'].lower()} {position:,}/{records:,}{percent}"
        f"   {streamer['achieved_records_per_s']:,} records/s"
    )


def _book_part(engine: EngineStatus | None, symbol: str) -> list[str]:
    if engine is None:
        return ["engine: no sign of life"]
    books = engine["symbols"]
    name = symbol if symbol in books else next(iter(books), "")
    best = [f"{name} {books[name]['bid'] or '-'} / {books[name]['ask'] or '-'}"] if name else []
    faults = [f"{part} degraded: {why}" for part, why in engine["degraded"].items()]
    return [*best, f"{engine['snapshots_stored']:,} snapshots stored", *faults]


class Screen:
    """Writes messages, and a status line that is rewritten in place on a terminal and repeated elsewhere."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()

    def say(self, text: str) -> None:
        self._write(f"{_CLEAR if self._terminal else ''}{text}\n")

    def status(self, text: str) -> None:
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"{_CLEAR}{text[:width]}")
        else:
            self.say(text)

    def _write(self, text: str) -> None:
        with suppress(OSError):  # a terminal that has gone away must not keep us from stopping in good order
            self._out.write(text)
            self._out.flush()


_CLEAR = "\r\x1b[2K"
