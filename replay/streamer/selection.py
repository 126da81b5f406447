"""What of the stream one live client gets: rows of the schemas and instruments that it subscribed. Floor 1."""

from collections.abc import Collection
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from replay.feed.live_merging import Part, Rows
from replay.feed.live_messages import SCHEMAS

_FEW: Final = 4
_NOTHING: Final = np.empty(0, np.uint32)

TIME_OF: Final = dict.fromkeys(SCHEMAS, "ts_event") | {"bbo-1s": "ts_recv"}
"""Which time a start is compared with, by schema, as the vendor has it."""


class _Wish(NamedTuple):
    ids: npt.NDArray[np.uint32] | None  # None: every instrument
    start_ns: int


class _Since(NamedTuple):
    """From when on rows go out: the earliest start of those that mean an instrument."""

    ids: npt.NDArray[np.uint32]  # ascending
    starts: npt.NDArray[np.uint64]  # of each of them
    others_start: int | None  # of all other instruments; None: they do not go out


class Selection:
    """The union of a client's subscriptions: a row that several of them want goes out once.

    However many there are, a row is looked up once: by instrument, the earliest start is what counts.
    """

    def __init__(self) -> None:
        self._wishes: dict[str, list[_Wish]] = {}
        self._since: dict[str, _Since] = {}  # what the wishes come to, made when it is needed

    def __contains__(self, schema: str) -> bool:
        return schema in self._wishes

    @property
    def schemas(self) -> list[str]:
        """The schemas of which the client gets anything, in the order in which rows of one place go out."""
        return [schema for schema in SCHEMAS if schema in self._wishes]

    @property
    def derived(self) -> list[str]:
        """The schemas beside mbo."""
        return [schema for schema in self.schemas if schema != "mbo"]

    def add(self, schema: str, ids: Collection[int] | None, start_ns: int = 0) -> None:
        """Give the client these instruments of a schema too (None: all), but nothing older than ``start_ns``."""
        wanted = None if ids is None else np.fromiter(ids, np.uint32, len(ids))
        self._wishes.setdefault(schema, []).append(_Wish(wanted, start_ns))
        self._since.pop(schema, None)

    def forget_starts(self) -> None:
        """Say that the client has caught up: from now on nothing is too old."""
        self._wishes = {
            schema: [wish._replace(start_ns=0) for wish in wishes] for schema, wishes in self._wishes.items()
        }
        self._since = {}

    def has_all_of(self, schema: str) -> bool:
        """Say whether every row of a schema goes out."""
        since = self._since_of(schema)
        return since.others_start == 0 and not len(since.ids)

    def take(self, schema: str, rows: Rows) -> Rows:
        """Return the rows that the client gets: the very array when it gets all of them.

        Cost: O(rows), and O(log instruments) for each.
        """
        mask = self._mask(schema, rows)
        return rows if mask is None else rows[mask]

    def part(self, schema: str, places: npt.NDArray[np.int64], rows: Rows) -> Part:
        """Return the rows that the client gets, with their places."""
        mask = self._mask(schema, rows)
        return Part(schema, places, rows) if mask is None else Part(schema, places[mask], rows[mask])

    def _mask(self, schema: str, rows: Rows) -> npt.NDArray[np.bool_] | None:
        """Return which rows the client gets; None for all."""
        if self.has_all_of(schema):
            return None
        since = self._since_of(schema)
        if since.others_start is None and not since.starts.any():
            mask = _among(rows["instrument_id"], since.ids)
        else:
            mask = _since_start(rows, TIME_OF[schema], since)
        return None if mask.all() else mask

    def _since_of(self, schema: str) -> _Since:
        if schema not in self._since:
            self._since[schema] = _earliest(self._wishes.get(schema, []))
        return self._since[schema]


def _earliest(wishes: list[_Wish]) -> _Since:
    """Return for every instrument the earliest start of the wishes that mean it. Cost: O(n log n) ids of all."""
    others = min((wish.start_ns for wish in wishes if wish.ids is None), default=None)
    named = [(wish.ids, wish.start_ns) for wish in wishes if wish.ids is not None]
    ids = np.concatenate([_NOTHING, *(each for each, _ in named)])
    starts = np.repeat(np.array([start for _, start in named], np.uint64), [len(each) for each, _ in named])
    if others is not None:
        earlier = starts < np.uint64(others)
        ids, starts = ids[earlier], starts[earlier]
    order = np.lexsort((starts, ids))
    ids, first = np.unique(ids[order], return_index=True)
    return _Since(ids, starts[order][first], others)


def _since_start(rows: Rows, time: str, since: _Since) -> npt.NDArray[np.bool_]:
    """Say which rows are not older than the start of their instrument."""
    ids, starts, others = since
    found, place = _found(rows["instrument_id"], ids)
    due = np.full(len(rows), others or 0, np.uint64)
    due[found] = starts[place[found]]
    wanted: npt.NDArray[np.bool_] = rows[time] >= due
    return wanted if others is not None else wanted & found


def _among(column: npt.NDArray[np.uint32], ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Say which of a column are among a few, or many, ascending ids."""
    if len(ids) > _FEW:
        return _found(column, ids)[0]
    found = np.zeros(len(column), bool)
    for id_ in ids:
        found |= column == id_
    return found


def _found(
    column: npt.NDArray[np.uint32], ids: npt.NDArray[np.uint32]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
    """Say which of a column are among ascending ids, and at which place of them."""
    if not len(ids):
        return np.zeros(len(column), bool), np.zeros(len(column), np.intp)
    place = np.minimum(np.searchsorted(ids, column), len(ids) - 1)
    return ids[place] == column, place
