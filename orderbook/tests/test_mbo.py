"""The record's layout and codes, pinned: files and sockets are viewed through them without a copy."""

import databento_dbn
import numpy as np

from orderbook.book.mbo import MBO, UNDEF_PRICE, UNDEF_TIMESTAMP, Action, Flags, Side

LAYOUT = {
    "length": ("u1", 0),
    "rtype": ("u1", 1),
    "publisher_id": ("<u2", 2),
    "instrument_id": ("<u4", 4),
    "ts_event": ("<u8", 8),
    "order_id": ("<u8", 16),
    "price": ("<i8", 24),
    "size": ("<u4", 32),
    "flags": ("u1", 36),
    "channel_id": ("u1", 37),
    "action": ("u1", 38),
    "side": ("u1", 39),
    "ts_recv": ("<u8", 40),
    "ts_in_delta": ("<i4", 48),
    "sequence": ("<u4", 52),
}


def test_a_record_is_56_bytes_of_pinned_fields() -> None:
    fields = MBO.fields
    assert MBO.itemsize == 56
    assert MBO.alignment == 8
    assert fields is not None
    assert {name: (field[0], field[1]) for name, field in fields.items()} == {
        name: (np.dtype(kind), offset) for name, (kind, offset) in LAYOUT.items()
    }


def test_the_layout_is_that_of_the_vendors_own_record() -> None:
    vendor = np.dtype(databento_dbn.MBOMsg._dtypes)
    assert vendor.itemsize == MBO.itemsize
    assert vendor.names == MBO.names
    for name in MBO.names or ():
        # The vendor calls one-letter codes text, the same byte is a number here.
        expected = np.dtype("u1") if vendor[name] == np.dtype("S1") else vendor[name]
        assert (MBO[name], MBO.fields[name][1]) == (expected, vendor.fields[name][1]), name


def test_a_vendor_record_reads_back_field_by_field() -> None:
    message = databento_dbn.MBOMsg(
        publisher_id=1,
        instrument_id=432669,
        ts_event=1_758_742_200_000_860_311,
        order_id=2**64 - 1,
        price=-64_830_000_000,
        size=7,
        action=databento_dbn.Action.MODIFY,
        side=databento_dbn.Side.ASK,
        ts_recv=1_758_742_200_001_385_399,
        flags=168,
        channel_id=26,
        ts_in_delta=-5,
        sequence=94_225_061,
    )
    record = np.frombuffer(bytes(message), MBO)[0]
    assert (record["action"], record["side"]) == (Action.MODIFY, Side.ASK)
    assert Flags(int(record["flags"])) == Flags.LAST | Flags.SNAPSHOT | Flags.BAD_TS_RECV
    for name in ("ts_event", "order_id", "price", "size", "ts_recv", "ts_in_delta", "sequence", "channel_id"):
        assert record[name] == getattr(message, name), name


def test_codes_are_the_vendors() -> None:
    assert {chr(code) for code in Action} == set("ACMRTFN")
    assert {chr(code) for code in Side} == set("BAN")
    assert databento_dbn.UNDEF_PRICE == UNDEF_PRICE
    assert databento_dbn.UNDEF_TIMESTAMP == UNDEF_TIMESTAMP
    for name, ours in Flags.__members__.items():
        assert int(getattr(databento_dbn, f"F_{name}")) == ours, name
