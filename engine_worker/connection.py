"""One connection to a feed: bytes from a socket into the decoder's own buffer, and records out of it. Floor 3.

Not a codec (replay.feed) and not the engine's loop: it says what arrived, that nothing did, that the replay has
ended, or that the connection broke.
"""

import logging
import socket
import time
from collections import deque
from typing import Final, Protocol, runtime_checkable

import numpy as np

from orderbook.book.mbo import MBO, MboArray
from replay.feed.dbn_codec import Notice
from replay.feed.live_client import GatewayRefused
from replay.feed.stream import FeedError, StreamDecoder

_NOTHING: Final[MboArray] = np.empty(0, MBO)

log = logging.getLogger(__name__)


class FeedInterrupted(Exception):
    """The connection broke, or what it carried made no sense: not the end of a replay."""


class FeedRefused(Exception):
    """The feed does not let us in; it will not the next time either, unless somebody changes something."""


@runtime_checkable
class Noticing(Protocol):
    """A decoder of a framing in which the feed can say something of itself."""

    notices: deque[Notice]
    """The last ones."""
    notice_count: int


class Connection:
    """One connection, and the decoder of what it carries."""

    def __init__(self, peer: socket.socket, decoder: StreamDecoder) -> None:
        self.decode_ns = 0
        """Time that the last ``receive()`` spent on decoding."""
        self.rejected = 0
        """What the last ``receive()`` left out because it was no record."""
        self.notices = 0
        """What the feed said about itself in the last ``receive()``."""
        self.fruitful = False
        self._peer = peer
        self._decoder = decoder
        self._all_rejected = self._all_notices = 0

    def symbol(self, instrument_id: int) -> str | None:
        """Return the symbol of an instrument, as far as the stream has told it."""
        return self._decoder.symbols.get(instrument_id)

    def receive(self, timeout_s: float) -> MboArray | None:
        """Return the records that arrived, valid until the next call; none when nothing did; None at the end.

        Raises FeedInterrupted; FeedRefused where there is a handshake.
        """
        self.rejected = self.notices = 0
        self._peer.settimeout(max(timeout_s, 0.001))
        try:
            size = self._peer.recv_into(self._decoder.space())
        except TimeoutError:
            return _NOTHING
        except OSError as error:
            raise FeedInterrupted(str(error)) from error
        begun = time.perf_counter_ns()
        try:
            if not size:
                self._decoder.finish()
                return None
            records = self._decoder.received(size)
        except FeedError as error:
            raise fault_of(error) from error
        finally:
            self._take_stock()
        self.decode_ns = time.perf_counter_ns() - begun
        self.fruitful |= len(records) > 0
        return records

    def close(self) -> None:
        self._peer.close()

    def _take_stock(self) -> None:
        """Count what came besides records, and log each notice; a feed that breaks off often says why just before."""
        rejected = sum(self._decoder.rejected.values())
        self.rejected, self._all_rejected = rejected - self._all_rejected, rejected
        self._take_notices()

    def _take_notices(self) -> None:
        if not isinstance(self._decoder, Noticing):
            return
        count = self._decoder.notice_count
        self.notices, self._all_notices = count - self._all_notices, count
        kept = list(self._decoder.notices)
        for notice in kept[max(len(kept) - self.notices, 0) :]:
            log_said(notice.is_error, notice.code, notice.text)
        if self.notices > len(kept):
            log.warning("the feed said %d things at once; only the last %d are shown", self.notices, len(kept))


def fault_of(error: FeedError) -> FeedInterrupted | FeedRefused:
    """Return what a fault of the stream means for the connection."""
    return FeedRefused(str(error)) if isinstance(error, GatewayRefused) else FeedInterrupted(str(error))


def log_said(is_error: bool, code: int, text: str) -> None:
    """Log what the feed says of itself."""
    log.log(logging.WARNING if is_error else logging.INFO, "the feed says: %s (%d)", text, code)
