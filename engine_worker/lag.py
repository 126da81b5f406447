"""How far the engine is behind what has arrived on this machine for it. Floor 3.

Not how far it is behind the market: what the gateway still holds back is the gateway's to tell, as it does in its own
status. A replay's market time is no clock to compare with either.
"""

import fcntl
import socket
import struct
import termios
from typing import Final, NamedTuple

_SIZE: Final = struct.Struct("i")


class Lag(NamedTuple):
    """What has arrived and was not received."""

    unread_bytes: int
    records: int
    """As many as those bytes are, by the size of what came last: 56 bytes a record in DBN, the mean of lines in CSV."""
    ns: int
    """How long the oldest of them has waited, at most: up to 0.2 s too long where the feed was silent before."""


NO_LAG: Final = Lag(0, 0, 0)


def unread_bytes(peer: socket.socket) -> int:
    """Return how many bytes the kernel holds for us; 0 where the socket is closed or cannot say."""
    try:
        return int(_SIZE.unpack(fcntl.ioctl(peer.fileno(), termios.FIONREAD, _SIZE.pack(0)))[0])
    except (OSError, ValueError):
        return 0
