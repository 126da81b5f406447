"""Errors of the domain core. Floor 0."""


class BookError(Exception):
    """Root of everything the book raises."""


class InvariantError(BookError):
    """A book contradicts itself. The message carries the evidence: order id, sequence, ts_event."""
