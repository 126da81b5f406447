"""From what a command says to a position: places, steps and windows of a recording. Floor 1.

Everything here may take long (a search in the index, the books of 65,536 records, an index that is opened), so it is
called on a thread and not on the event loop. What cannot be found is refused in a sentence for the one who asked.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from orderbook.book.mbo import MboArray
from replay.feed import positions
from replay.feed.index import Index, IndexFault
from replay.feed.positions import Unit
from replay.streamer.messages import StepUnit, StreamerRefused
from replay.streamer.publication import Window

_UNITS: Final = {
    "event": Unit.EVENT,
    "trade": Unit.TRADE,
    "bbo": Unit.BBO,
    "crossing": Unit.CROSSING,
}
_FIXED: Final = '{"record": number}, {"ts_ns": "nanoseconds"} or {"fraction": 0 to 1}'
_NEXT: Final = '{"next": "trade", "crossing", "anomaly", "event" or "bbo"}'
_PREVIOUS: Final = '{"previous": "trade", "crossing", "event" or "bbo"}'

T = TypeVar("T")


class Ground(NamedTuple):
    """What is searched."""

    dataset: str
    records: MboArray
    find_index: Callable[[], Index | None]
    """Called when an index is needed."""


def window_of(ground: Ground, begin: object, end: object) -> Window:
    """Return the window between two places, None for the beginning or the end of the file. Raises StreamerRefused."""
    window = Window(
        0 if begin is None else _fixed(ground, begin),
        len(ground.records) if end is None else _fixed(ground, end),
    )
    if window.begin >= window.end and len(ground.records):
        raise StreamerRefused(f"The window is empty: from record {window.begin} to record {window.end}.")
    return window


def find(ground: Ground, window: Window, place: object, position: int) -> int:
    """Return the position of a place in the window, as seen from a position. Raises StreamerRefused."""
    match place:
        case {"next": "anomaly", **more} if not more:
            return _next_anomaly(ground, window, position)
        case {"next": str(name), **more} if name in _UNITS and not more:
            return _next(ground, window, _UNITS[name], name, position)
        case {"previous": str(name), **more} if name in _UNITS and not more:
            return _previous(ground, window, _UNITS[name], name, position)
        case {"next": _} | {"previous": _}:
            raise StreamerRefused(f"Expected a place {_NEXT} or {_PREVIOUS}, found {place!r}.")
    found = _fixed(ground, place)
    if not window.begin <= found <= window.end:
        raise StreamerRefused(
            f"Record {found} lies outside of the window, which is from record {window.begin} to record {window.end}."
        )
    return found


def stepped(ground: Ground, window: Window, unit: StepUnit, by: int, position: int) -> int:
    """Return the position so many units on, or back: the end or the beginning of the window at the most.

    Raises StreamerRefused when no step is possible.
    """
    if unit == "record":
        found = position + by
    else:
        index = _index(ground)
        found = _asked(ground, index, lambda: positions.step(ground.records, index, _UNITS[unit], position, by))
    found = min(max(found, window.begin), window.end)
    if found == position:
        raise _nothing(unit, position, ahead=by > 0)
    return found


def _fixed(ground: Ground, place: object) -> int:
    records = ground.records
    match place:
        case {"record": int(record), **more} if not more and not isinstance(record, bool):
            if 0 <= record <= len(records):
                return record
            raise StreamerRefused(f"Expected a record from 0 to {len(records)}, the end of the file, found {record}.")
        case {"fraction": int(fraction) | float(fraction), **more} if not more and not isinstance(fraction, bool):
            if 0 <= fraction <= 1:
                return positions.at_fraction(records, fraction)
            raise StreamerRefused(f"Expected a fraction from 0 to 1, found {fraction}.")
        case {"ts_ns": str(text), **more} if not more and text.isascii() and text.isdigit() and len(text) <= 20:
            index = _index(ground)
            return positions.at_time(records, index, min(int(text), 2**64 - 1))
    raise StreamerRefused(f"Expected a place {_FIXED}, found {place!r}.")


def _next(ground: Ground, window: Window, unit: Unit, name: str, position: int) -> int:
    index = _index(ground)

    def search() -> int | None:
        nth = positions.count(ground.records, index, unit, position) + 1
        all_of_them = int(index.marks[unit][-1])
        return positions.position_of(ground.records, index, unit, nth) if nth <= all_of_them else None

    found = _asked(ground, index, search)
    if found is None or found > window.end:
        raise _nothing(name, position, ahead=True)
    return found


def _next_anomaly(ground: Ground, window: Window, position: int) -> int:
    index = _index(ground)
    found = _asked(ground, index, lambda: positions.next_anomaly(ground.records, index, position))
    if found is None or found > window.end:
        raise _nothing("anomaly", position, ahead=True)
    return found


def _previous(ground: Ground, window: Window, unit: Unit, name: str, position: int) -> int:
    index = _index(ground)

    def search() -> int | None:
        nth = positions.count(ground.records, index, unit, position - 1)
        return positions.position_of(ground.records, index, unit, nth) if nth else None

    found = _asked(ground, index, search)
    if found is None or found < window.begin:
        raise _nothing(name, position, ahead=False)
    return found


def _index(ground: Ground) -> Index:
    index = ground.find_index()
    if index is None:
        raise StreamerRefused(
            f"The index of {ground.dataset} is not made yet: until it is, only record numbers and fractions are found."
        )
    return index


def _asked(ground: Ground, index: Index, search: Callable[[], T]) -> T:
    """Return what a search finds; a damaged index is removed, so that the next scan makes another."""
    try:
        return search()
    except IndexFault as error:
        index.discard()
        raise StreamerRefused(f"The index of {ground.dataset} was damaged and is removed: {error}.") from error


def _nothing(name: str, position: int, *, ahead: bool) -> StreamerRefused:
    if ahead:
        return StreamerRefused(f"There is no further {name} behind record {position}.")
    return StreamerRefused(f"There is no {name} before record {position}.")
