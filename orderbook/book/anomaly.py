"""The kinds of data fault that a book counts. Floor 0.

A fault never stops a book: the rule beside each kind says what the book does instead. The order of the
members is the order of the kernel's counters.
"""

from enum import StrEnum


class Anomaly(StrEnum):
    """Kinds of data fault, as they are named in reports."""

    UNKNOWN_CANCEL = "unknown_cancel"  # ignored: the order was added before the data begins
    UNKNOWN_MODIFY = "unknown_modify"  # taken as an add
    DUPLICATE_ADD = "duplicate_add"  # the new order replaces the old one, at the end of its queue
    OVER_CANCEL = "over_cancel"  # the order goes
    CANCEL_MISMATCH = "cancel_mismatch"  # other price or side than rests: the order id decides
    SIDE_CHANGE = "side_change"  # a modify to the other side: taken as cancel and add
    ZERO_SIZE = "zero_size"  # an add or cancel of nothing is ignored, a modify to nothing removes
    UNDEF_PRICE = "undef_price"  # an add or modify without a price: ignored
    IMPLICIT_CLEAR = "implicit_clear"  # a snapshot that began without a clear, over resting orders
    MAYBE_BAD_BOOK = "maybe_bad_book"  # the venue's warning of a gap; the record is applied
    BAD_ACTION = "bad_action"  # ignored
    BAD_SIDE = "bad_side"  # an add, cancel or modify of no side: ignored
