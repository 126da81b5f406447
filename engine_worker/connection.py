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

from engine_worker.lag import Lag, unread_bytes
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
        self.rejected: dict[str, int] = {}
        """What the last ``receive()`` left out because it was no record, by reason."""
        self.notices = 0
        """What the feed said about itself in the last ``receive()``."""
        self.fruitful = False
        self.is_ours = False
        """Whether the feed is a gateway of ours, which can name its replays."""
        self.replay_id = 0
        """Which replay the feed says it brings; 0 while it has said nothing."""
        self._peer = peer
        self._decoder = decoder
        self._noticing = decoder if isinstance(decoder, Noticing) else None  # asked once: it takes 20 us
        self._all_rejected: dict[str, int] = {}
        self._all_notices = 0
        self._emptied_ns = time.monotonic_ns()  # when all that had arrived was received
        self._record_bytes = MBO.itemsize

    def symbol(self, instrument_id: int) -> str | None:
        """Return the symbol of an instrument, as far as the stream has told it."""
        return self._decoder.symbols.get(instrument_id)

    def receive(self, timeout_s: float) -> MboArray | None:
        """Return the records that arrived, valid until the next call; none when nothing did; None at the end.

        Raises FeedInterrupted; FeedRefused where there is a handshake.
        """
        self.rejected, self.notices = {}, 0
        self._peer.settimeout(max(timeout_s, 0.001))
        space = self._decoder.space()
        try:
            size = self._peer.recv_into(space)
        except TimeoutError as error:
            if error.errno is not None:  # the kernel's ETIMEDOUT: it has given up a peer that is silent
                raise FeedInterrupted(str(error)) from error
            self._emptied_ns = time.monotonic_ns()
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
        if size < len(space):
            self._emptied_ns = time.monotonic_ns()
        if len(records):
            self.fruitful = True
            self._record_bytes = max(size // len(records), 1)
        return records

    @property
    def left(self) -> int:
        """Bytes that arrived and of which no record was made: a part of one, or garbage."""
        return self._decoder.left

    def lag(self) -> Lag:
        """Return how far behind what has arrived here we are; any thread may ask. Cost: one system call."""
        unread = unread_bytes(self._peer)
        waits_ns = time.monotonic_ns() - self._emptied_ns if unread else 0
        return Lag(unread, unread // self._record_bytes, waits_ns)

    def close(self) -> None:
        self._peer.close()

    def _take_stock(self) -> None:
        """Count what came besides records, and log each notice; a feed that breaks off often says why just before."""
        rejected = self._decoder.rejected
        if rejected != self._all_rejected:
            news = {reason: count - self._all_rejected.get(reason, 0) for reason, count in rejected.items()}
            self.rejected, self._all_rejected = {reason: count for reason, count in news.items() if count}, {**rejected}
        self._take_notices()

    def _take_notices(self) -> None:
        if self._noticing is None or self._noticing.notice_count == self._all_notices:
            return
        count = self._noticing.notice_count
        self.notices, self._all_notices = count - self._all_notices, count
        kept = list(self._noticing.notices)
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
