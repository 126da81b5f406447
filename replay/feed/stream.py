"""What every decoder of a byte stream offers, and how it fails. Floor 1.

Sans-I/O: whoever owns the socket or the file receives into ``space()`` and says how much arrived; the decoder
never reads, waits or logs. Its buffer is its bound: it never holds more than one.
"""

from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import MboArray

BUFFER_BYTES: Final = 2 << 20
"""What is received at once at most, and applied in one pass: 37,000 records of DBN."""
MIN_BUFFER_BYTES: Final = 4096

FramingName = Literal["csv", "dbn"]
"""How records are written on the raw feed; both sides must say the same."""


class FeedError(Exception):
    """A stream that cannot go on: where it broke, what was expected there, and what was found."""

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}")
        self.where, self.expected, self.found = where, expected, found


class StreamDecoder(Protocol):
    """Bytes in any pieces become MBO records; the pieces never change what comes out."""

    @property
    def symbols(self) -> dict[int, str]:
        """instrument_id -> raw symbol, as far as the stream has told; grows while it is read."""

    @property
    def rejected(self) -> dict[str, int]:
        """Count by reason of what arrived whole and was not an MBO record; nothing else is left out."""

    @property
    def left(self) -> int:
        """Bytes of a record, a line or a header that has begun and not ended; nothing is made of them."""

    def space(self) -> memoryview:
        """Return where to receive into, never empty. Ends the life of the records handed out before."""

    def received(self, n: int) -> MboArray:
        """Return the records that the next ``n`` bytes complete: writable, 8-byte aligned, valid until ``space()``.

        Raises FeedError when the stream cannot go on; the decoder is of no use afterwards.
        """

    def finish(self) -> None:
        """Say that the stream has ended. Raises FeedError when it ends inside a record, a line or the header."""


def receive_buffer(size: int) -> npt.NDArray[np.uint8]:
    """Return zeroed, writable memory that starts on an 8-byte boundary; ``size`` is rounded up to whole records."""
    return np.zeros((max(size, MIN_BUFFER_BYTES) + 7) // 8, np.uint64).view(np.uint8)


def shown(data: bytes) -> str:
    """Return bytes as an error message shows them: printable, and not longer than a line."""
    return repr(data[:40])[1:] + "…" * (len(data) > 40)
