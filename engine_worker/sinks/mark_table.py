"""The newest durable mark of an engine, in PostgreSQL beside the rows that it vouches for. Floor 3.

There, because a mark must not outlive the rows: a database that is made anew, or comes from a backup, has neither.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Sequence
from threading import Event
from typing import Final

import psycopg

from engine_worker.book_names import BookName
from engine_worker.mark import Mark, MarkDamaged, names_text, packed, unpacked
from engine_worker.sinks.deadline import CONNECTION, DeadlineConnection
from history.models import EngineMark

LOAD_WITHIN_S: Final = 4.0
"""Tries that begin by then are made; one that is refused costs no time."""
_RETRY_S: Final = 0.2
_CONNECT_S: Final = 2  # less than that libpq does not know

# Put together from the names of our own model only (hence the noqa); every value is a parameter.
_TABLE: Final = EngineMark._meta.db_table
_LOAD: Final = f"SELECT mark FROM {_TABLE} WHERE engine = %s"  # noqa: S608
_BEGIN: Final = (
    f"INSERT INTO {_TABLE} (engine, replay_id, mark, updated_at) VALUES (%s, %s, %s, now()) "  # noqa: S608
    "ON CONFLICT (engine) DO NOTHING"
)
_KEEP: Final = (
    f"INSERT INTO {_TABLE} (engine, replay_id, mark, updated_at) VALUES (%s, %s, %s, now()) "  # noqa: S608
    "ON CONFLICT (engine) DO UPDATE SET replay_id = EXCLUDED.replay_id, mark = EXCLUDED.mark, updated_at = now()"
)

log = logging.getLogger(__name__)


class MarkTable:
    """The row of one engine: of what is called so, is subscribed to the same, and stores the same of it."""

    def __init__(self, conninfo: str, name: str, dataset: str, symbols: Sequence[str], *also: str | int) -> None:
        """``also``: what else its rows depend on, as the gateway that numbers the replays and the rule of snapshots."""
        self._conninfo = conninfo
        wanted = hashlib.sha256(json.dumps([dataset, sorted(symbols), *also]).encode()).hexdigest()
        self.row = f"{name}-{wanted[:16]}"
        """What its row is called."""
        self._names: Sequence[BookName] = ()
        self._names_text = names_text(())

    def load(self, first: Mark, stop: Event) -> Mark | None:
        """Return the mark, which is ``first`` from now on if there was none.

        None when it is damaged, or when PostgreSQL does not answer in time.
        """
        deadline = time.monotonic() + LOAD_WITHIN_S
        while True:
            try:
                return self._read(first, deadline)
            except MarkDamaged as error:
                log.error("the replay is had from its beginning: %s", error)
                return None
            except psycopg.Error as error:
                if stop.wait(_RETRY_S) or time.monotonic() > deadline:
                    reason = " ".join(str(error).split())
                    log.warning("where we were is not known, the replay is had from its beginning: %s", reason)
                    return None

    def keep(self, connection: DeadlineConnection, mark: Mark) -> None:
        """Write a mark in place of the one before. Raises psycopg.Error."""
        if mark.names is not self._names:  # they change rarely, and are a fifth of the work
            self._names, self._names_text = mark.names, names_text(mark.names)
        connection.execute(_KEEP, (self.row, mark.replay_id, packed(mark, self._names_text)))

    def _read(self, first: Mark, deadline_s: float) -> Mark:
        left_s = max(math.ceil(deadline_s - time.monotonic()), _CONNECT_S)
        with DeadlineConnection.connect(
            self._conninfo, autocommit=True, **{**CONNECTION, "connect_timeout": left_s}
        ) as connection:
            connection.deadline_s = deadline_s
            connection.execute(_BEGIN, (self.row, first.replay_id, packed(first)))
            (data,) = connection.execute(_LOAD, (self.row,)).fetchall()
        return unpacked(bytes(data[0]))
