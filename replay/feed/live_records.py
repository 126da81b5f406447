"""What the live protocol sends besides market data, as records of DBN version 3; and the ts_out of records. Floor 1.

Through databento_dbn. Every text comes with its code: clients look at the code and not at the text. The time of
sending comes in as an argument.
"""

import re
from typing import Any, Final

import databento_dbn as dbn
import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import UNDEF_TIMESTAMP
from replay.feed.dbn_codec import TS_OUT_BYTES
from replay.feed.live_messages import SubscriptionRequest
from replay.feed.live_symbology import Resolved

AUTH_FAILED: Final = 1
KEY_DEACTIVATED: Final = 2
CONNECTION_LIMIT: Final = 3
RESOLUTION_FAILED: Final = 4
INVALID_SUBSCRIPTION: Final = 5
INTERNAL_ERROR: Final = 6
SKIPPED_RECORDS: Final = 7
DATA_AGED_OUT: Final = 8
ERROR_CODES: Final = range(AUTH_FAILED, DATA_AGED_OUT + 1)

FATAL_CODES: Final = frozenset(ERROR_CODES) - {RESOLUTION_FAILED, SKIPPED_RECORDS}
"""The server closes the connection behind an error with one of these."""

HEARTBEAT: Final = 0
SUBSCRIPTION_ACK: Final = 1
SLOW_READER_WARNING: Final = 2
REPLAY_COMPLETED: Final = 3

_MOST_TEXT: Final = 300  # both kinds of message hold a little more
_WORD: Final = 4
_RAW_SYMBOL: Final = dbn.SType("raw_symbol")
_REPLAY_FOLLOWS: Final = re.compile(r"Replay ([0-9]{1,18}) follows")


def heartbeat(now_ns: int) -> bytes:
    """Return what says that the line is alive; only sent when nothing else was."""
    return system_message(now_ns, HEARTBEAT, "Heartbeat")


def subscription_ack(now_ns: int, request: SubscriptionRequest) -> bytes:
    """Return the answer to a subscription that was understood."""
    number = "" if request.id is None else f" {request.id}"
    text = f"Subscription request{number} for {request.schema} data succeeded"
    return system_message(now_ns, SUBSCRIPTION_ACK, text)


def replay_completed(now_ns: int, schema: str) -> bytes:
    """Return what says that a subscription with a start has caught up with the present."""
    return system_message(now_ns, REPLAY_COMPLETED, f"Finished {schema} replay")


def replay_follows(now_ns: int, replay_id: int) -> bytes:
    """Return what says which replay comes next, to those who have asked for that."""
    return system_message(now_ns, SUBSCRIPTION_ACK, f"Replay {replay_id} follows")


def replay_told(code: int, text: str) -> int | None:
    """Return which replay a system message says comes next; None when it says something else.

    >>> replay_told(SUBSCRIPTION_ACK, "Replay 17 follows")
    17
    """
    found = _REPLAY_FOLLOWS.fullmatch(text) if code == SUBSCRIPTION_ACK else None
    return None if found is None else int(found[1])


def system_message(now_ns: int, code: int, text: str) -> bytes:
    """Return a text of the feed about itself; too long a text is cut."""
    return bytes(dbn.SystemMsg(now_ns, _fitting(text), code=dbn.SystemCode.from_int(code)))


def error_message(now_ns: int, code: int, text: str) -> bytes:
    """Return an error; too long a text is cut."""
    return bytes(dbn.ErrorMsg(now_ns, _fitting(text), is_last=True, code=dbn.ErrorCode.from_int(code)))


def _fitting(text: str) -> str:
    """Return a text without what a C string cannot hold."""
    return text.encode("ascii", "replace")[:_MOST_TEXT].replace(b"\0", b"?").decode()


def symbol_mapping(now_ns: int, instrument: Resolved, stype_in: str) -> bytes:
    """Return what names an instrument; clients take the name from ``stype_out_symbol``."""
    return bytes(
        dbn.SymbolMappingMsg(
            publisher_id=0,
            instrument_id=instrument.instrument_id,
            ts_event=now_ns,
            stype_in=dbn.SType(stype_in),
            stype_in_symbol=instrument.asked,
            stype_out=_RAW_SYMBOL,
            stype_out_symbol=instrument.raw_symbol,
            start_ts=UNDEF_TIMESTAMP,
            end_ts=UNDEF_TIMESTAMP,
        )
    )


def with_ts_out(records: npt.NDArray[Any], ts_out_ns: int) -> npt.NDArray[np.uint8]:
    """Return records of one kind as bytes, 8 more each: a copy with the time of sending behind every one.

    Their size must be a multiple of 8, as that of every kind is. Cost: one copy, 5 ns for an MBO record.
    """
    words = records.dtype.itemsize // TS_OUT_BYTES
    out = np.empty((len(records), words + 1), np.uint64)
    out[:, :words] = np.ascontiguousarray(records).view(np.uint64).reshape(-1, words)
    out[:, words] = ts_out_ns
    data = out.view(np.uint8)
    data[:, 0] = data.shape[1] // _WORD
    return data.reshape(-1)


def message_with_ts_out(message: bytes, ts_out_ns: int) -> bytes:
    """Return one record with the time of sending behind it."""
    length = len(message) + TS_OUT_BYTES
    return bytes([length // _WORD]) + message[1:] + ts_out_ns.to_bytes(TS_OUT_BYTES, "little")
