"""What of the stream one live client gets: rows of the schemas and instruments that it subscribed. Floor 1."""

from collections.abc import Collection
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from replay.feed.live_merging import Part, Rows
from replay.feed.live_messages import SCHEMAS

_FEW: Final = 4
_TIME_OF: Final = {"bbo-1s": "ts_recv"}
"""Which time a start is compared with; ts_event for the other schemas, as the vendor has it."""


class _Wish(NamedTuple):
    ids: npt.NDArray[np.uint32] | None  # sorted; None: every instrument
    start_ns: int


class Selection:
    """The union of a client's subscriptions: a row that several of them want goes out once."""

    def __init__(self) -> None:
        self._wishes: dict[str, list[_Wish]] = {}

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
        wishes = self._wishes.setdefault(schema, [])
        wishes.append(_Wish(None if ids is None else np.array(sorted(ids), np.uint32), start_ns))
        if not any(wish.start_ns for wish in wishes):
            self._wishes[schema] = [_united(wishes)]

    def forget_starts(self) -> None:
        """Say that the client has caught up: from now on nothing is too old."""
        self._wishes = {schema: [_united(wishes)] for schema, wishes in self._wishes.items()}

    def take(self, schema: str, rows: Rows) -> Rows:
        """Return the rows that the client gets: the very array when it gets all of them. Cost: O(rows)."""
        mask = self._mask(schema, rows)
        return rows if mask is None else rows[mask]

    def part(self, schema: str, places: npt.NDArray[np.int64], rows: Rows) -> Part:
        """Return the rows that the client gets, with their places."""
        mask = self._mask(schema, rows)
        return Part(schema, places, rows) if mask is None else Part(schema, places[mask], rows[mask])

    def _mask(self, schema: str, rows: Rows) -> npt.NDArray[np.bool_] | None:
        """Return which rows the client gets; None for all."""
        mask = np.zeros(len(rows), bool)
        for ids, start_ns in self._wishes.get(schema, ()):
            if ids is None and not start_ns:
                return None
            wanted = np.ones(len(rows), bool) if ids is None else _among(rows["instrument_id"], ids)
            if start_ns:
                wanted &= rows[_TIME_OF.get(schema, "ts_event")] >= np.uint64(start_ns)
            mask |= wanted
        return None if mask.all() else mask


def _united(wishes: list[_Wish]) -> _Wish:
    """Return one wish for the instruments of several, from any time."""
    ids = [wish.ids for wish in wishes if wish.ids is not None]
    return _Wish(np.unique(np.concatenate(ids)) if len(ids) == len(wishes) else None, 0)


def _among(column: npt.NDArray[np.uint32], ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Say which of a column are among a few, or many, sorted ids."""
    found = np.zeros(len(column), bool)
    if len(ids) <= _FEW:
        for id_ in ids:
            found |= column == id_
        return found
    place = np.minimum(np.searchsorted(ids, column), len(ids) - 1)
    among: npt.NDArray[np.bool_] = ids[place] == column
    return among
