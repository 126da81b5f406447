"""The feed's TCP connection: made again for ever, read into the decoder's own buffer. Floor 3.

Not a codec (replay.feed) and not the engine's loop: it says what arrived, that nothing did, that the replay has
ended, or that the connection broke.
"""

import logging
import socket
import time
from collections import deque
from collections.abc import Callable
from threading import Event
from typing import Final, Protocol, runtime_checkable

import numpy as np

from engine_worker.backoff import backoff
from orderbook.book.mbo import MBO, MboArray
from replay.feed.dbn_codec import Notice
from replay.feed.stream import FeedError, FramingName, StreamDecoder

FIRST_RETRY_S: Final = 0.05
RETRY_CAP_S: Final = 2.0
CONNECT_TIMEOUT_S: Final = 2.0
# A peer that vanished without a word is noticed after 10 + 3 * 5 s; one that is only silent stays connected.
KEEPALIVE: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

_NOTHING: Final[MboArray] = np.empty(0, MBO)

log = logging.getLogger(__name__)


class FeedInterrupted(Exception):
    """The connection broke, or what it carried made no sense: not the end of a replay."""


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

        Raises FeedInterrupted.
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
            raise FeedInterrupted(str(error)) from error
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
        if not isinstance(self._decoder, Noticing):
            return
        count = self._decoder.notice_count
        self.notices, self._all_notices = count - self._all_notices, count
        kept = list(self._decoder.notices)
        for notice in kept[max(len(kept) - self.notices, 0) :]:
            log.log(
                logging.WARNING if notice.is_error else logging.INFO, "the feed says: %s (%d)", notice.text, notice.code
            )
        if self.notices > len(kept):
            log.warning("the feed said %d things at once; only the last %d are shown", self.notices, len(kept))


class FeedClient:
    """Makes connections to one address, waiting longer from try to try until one brings records."""

    def __init__(self, host: str, port: int, make_decoder: Callable[[], StreamDecoder]) -> None:
        self.address = (host, port)
        self._make_decoder = make_decoder
        self._last: Connection | None = None
        self._waits = backoff(FIRST_RETRY_S, RETRY_CAP_S)

    def connect(self, stop: Event) -> Connection | None:
        """Return a new connection, however long that takes; None once ``stop`` is set."""
        wait_s = 0.0
        if self._last is not None:
            if self._last.fruitful:
                self._waits = backoff(FIRST_RETRY_S, RETRY_CAP_S)
            wait_s = next(self._waits)
        told = False
        while not stop.wait(wait_s):
            try:
                peer = _open(self.address)
            except OSError as error:
                wait_s = next(self._waits)
                if not told:
                    log.warning("feed %s:%d cannot be reached (%s); trying for ever", *self.address, error)
                    told = True
                continue
            log.info("feed %s:%d connected", *self.address)
            self._last = Connection(peer, self._make_decoder())
            return self._last
        return None


def decoder_factory(framing: FramingName) -> Callable[[], StreamDecoder]:
    """Return what makes a decoder of a framing."""
    if framing == "dbn":
        from replay.feed.dbn_codec import DbnStreamDecoder

        return DbnStreamDecoder
    # Imported here, because the compiled CSV codec takes a second to load and DBN needs none of it.
    from replay.feed.csv_codec import CsvStreamDecoder

    return CsvStreamDecoder


def _open(address: tuple[str, int]) -> socket.socket:
    """Connect, and let the kernel ask a silent peer whether it lives. Raises OSError."""
    peer = socket.create_connection(address, CONNECT_TIMEOUT_S)
    try:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            option = getattr(socket, name, None)  # macOS spells some of them differently
            if option is not None:
                peer.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        peer.close()
        raise
    return peer
