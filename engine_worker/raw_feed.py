"""The raw feed: no handshake, one framing that both sides know, and its end is the end of the replay. Floor 3."""

import socket
from collections.abc import Callable
from threading import Event

from engine_worker.connection import Connection
from replay.feed.stream import FramingName, StreamDecoder


def raw_feed(framing: FramingName) -> Callable[[socket.socket, Event], Connection]:
    """Return what makes a connection of a socket."""
    make_decoder = decoder_factory(framing)
    return lambda peer, stop: Connection(peer, make_decoder())


def decoder_factory(framing: FramingName) -> Callable[[], StreamDecoder]:
    """Return what makes a decoder of a framing."""
    if framing == "dbn":
        from replay.feed.dbn_codec import DbnStreamDecoder

        return DbnStreamDecoder
    # Imported here, because the compiled CSV codec takes a second to load and DBN needs none of it.
    from replay.feed.csv_codec import CsvStreamDecoder

    return CsvStreamDecoder
