"""Writes the first inputs of each target: `python -m replay.tests.fuzz.seeds`. All of them are simulated or made here.

What fuzzing found lies beside them and is kept by hand.
"""

from collections.abc import Iterator

import databento_dbn as dbn
import zstandard

from orderbook.book.mbo import Action, MboArray
from orderbook.tests.records import LAST, MAYBE_BAD_BOOK, SNAPSHOT, TOB, add, cancel, clear, modify, record, stream
from replay.feed.cram import respond
from replay.feed.csv_codec import HEADER, encode_csv
from replay.feed.dbn_metadata import encode_mapping, encode_metadata
from replay.feed.live_messages import SubscriptionRequest
from replay.feed.live_records import heartbeat, replay_completed
from replay.feed.sources import SUFFIXES
from replay.feed.zstd_source import FRAME_MAGIC
from replay.simulator import instrument_ids, simulate
from replay.tests.feeds import SYMBOLS, edge_records
from replay.tests.fuzz import CORPUS
from replay.tests.fuzz.live import CHALLENGE, KEY
from replay.tests.fuzz.mutations import PLAN_BYTES
from replay.tests.test_csv_codec import vendor_csv
from replay.tests.test_dbn_codec import START, metadata, system, with_ts_out

_PLAN = bytes(PLAN_BYTES)
_NAMES = instrument_ids(["CLX5", "ESZ5"])
_SESSION = simulate(2000, list(_NAMES.values()), 7)
_OPENING = int((_SESSION["action"] == Action.TRADE).argmax())
_PICTURE, _TRADING = _SESSION[:12], _SESSION[_OPENING : _OPENING + 24]
_HEAD = encode_metadata("GLBX.MDP3", START, _NAMES)
_DBN = _HEAD + _TRADING.tobytes()
_CSV = HEADER + encode_csv(_TRADING[:8], _NAMES)
_OTHER = bytes([12, 0]) + bytes(46)
_AUTH = (
    f"auth={respond(CHALLENGE, KEY)}|dataset=GLBX.MDP3|encoding=dbn|ts_out=0|compression=none"
    "|heartbeat_interval_s=30|client=Databento/0.87.0"
).encode()


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """Yield target, name and content of each input."""
    for version in (1, 2, 3):
        yield "metadata", f"version_{version}", metadata(version)
    yield "metadata", "two_symbols", _HEAD
    yield "metadata", "by_id", metadata(3, stype_in="instrument_id")
    yield "metadata", "mixed_stream", metadata(3, schema=None, mapped=False)
    yield "metadata", "ts_out", metadata(3, ts_out=True)

    live = [
        metadata(3, schema=None, mapped=False),
        system("ack", dbn.SystemCode.SUBSCRIPTION_ACK),
        *(encode_mapping(id_, symbol, START) for id_, symbol in _NAMES.items()),
        _TRADING[:4].tobytes() + _OTHER + _TRADING[4:8].tobytes(),
        bytes(dbn.ErrorMsg(START, "slow", code=dbn.ErrorCode.INTERNAL_ERROR)),
    ]
    yield "dbn", "session", _PLAN + _DBN
    yield "dbn", "picture_in_pieces", bytes([0, 1, 50, 200]) + _HEAD + _PICTURE.tobytes()
    yield "dbn", "live", _PLAN + b"".join(live)
    yield "dbn", "ts_out", bytes([0, 63, 64, 65]) + metadata(3, ts_out=True) + with_ts_out(_TRADING[:8])
    yield "dbn", "version_1", _PLAN + metadata(1) + bytes(dbn.SystemMsgV1(START, "old")) + _TRADING[:8].tobytes()

    raw = vendor_csv(_TRADING[:6], pretty=False, symbol=False)
    rows = [line.split(b",")[::-1] for line in _CSV.splitlines()[:5]]
    yield "csv", "pretty", _PLAN + _CSV
    yield "csv", "raw_without_symbol", bytes([0, 5, 60, 255]) + raw
    yield "csv", "backwards_on_windows", _PLAN + b"".join(b",".join(row) + b"\r\n" for row in rows)
    yield "csv", "edges", _PLAN + HEADER + encode_csv(edge_records()[:6], SYMBOLS)
    dates = ["1970-01-01", "2000-02-29", "2100-02-28", "2100-02-29", "2024-12-31", "2554-07-21", "2554-07-22"]
    line = _CSV.splitlines()[1].partition(b",")[2]
    yield "csv", "dates", _PLAN + HEADER + b"".join(f"{day}T23:34:32.5Z,".encode() + line + b"\n" for day in dates)
    yield "csv", "bad_lines", bytes([1, 7, 0, 30]) + _CSV + b"junk\n,,\n\n" + _CSV

    forms = {"dbn": _DBN, "dbn.zst": _DBN, "csv": _CSV, "csv.zst": _CSV}
    for number, suffix in enumerate(SUFFIXES):
        yield "recording", suffix[1:].replace(".", "_"), bytes([number, 0, 100, 0]) + forms[suffix[1:]]
    yield "recording", "live_dbn", _PLAN + b"".join(live)
    yield "recording", "packed_csv_zst", bytes([3, 1, 0, 0]) + zstandard.compress(_CSV)

    skippable = b"\x5a\x2a\x4d\x18\x03\0\0\0abc"
    checked = zstandard.ZstdCompressor(write_checksum=True).compress(_CSV)
    yield "zstd", "frames", zstandard.compress(_CSV) + skippable + checked
    yield "zstd", "nothing", zstandard.compress(b"")
    yield "zstd", "repeated_bytes", _repeated(40)
    yield "zstd", "beyond_the_bound", _repeated(700)
    yield "zstd", "streamed", zstandard.ZstdCompressor(write_content_size=False).compress(_DBN)

    values = ["64.830000000", "-37.63", "-9223372036.854775807", "0.0000000010", "9223372036854775807"]
    values += ["2025-09-24T19:30:00.001385399Z", "2025-09-24 21:30:00+02:00", "2024-02-29t23:59:59.9z"]
    for text in values:
        yield "values", text.partition("+")[0].replace(" ", "_").replace(":", ""), text.encode()

    yield "socket", "subscribe", b'{"type":"subscribe","symbol":"ESZ5","depth":5,"push_ms":100}'
    yield "socket", "update", b'{"type": "update", "depth": 200}'
    yield "socket", "unsubscribe", b'{"type":"unsubscribe"}'
    yield "socket", "channels", b'{"type":"subscribe","channels":["book","bbo","trades","status"],"acks":20}'
    yield "socket", "ack", b'{"type":"ack","seq":4711,"symbol":"CLX5"}'

    start = b'{"replay_id":1,"generation":1,"dataset":"made","path":"made.dbn","pace":"max","loop":false}'
    yield "commands", "start", b'{"verb":"start","args":' + start + b"}"
    yield "commands", "pace", b'{"verb":"pace","args":{"pace":{"records_per_s":100}}}'
    yield "commands", "stop", b'{"verb":"stop","args":{}}'
    yield "commands", "status", b'{"verb":"status","args":{}}'

    lines = [
        _AUTH,
        b"schema=mbo|stype_in=raw_symbol|symbols=CLX5|start=0|snapshot=0|id=0|is_last=1",
        b"start_session=0",
    ]
    yield (
        "live_server",
        "python",
        bytes([0, 1, 30, 200]) + b"\n".join([*lines, b"schema=trades|symbols=ALL_SYMBOLS", b""]),
    )
    wide = SubscriptionRequest("mbp-10", tuple(f"S{number}" for number in range(501)), start_ns=START, id=1)
    yield "live_server", "two_lines", _PLAN + _AUTH + b"\n" + wide.encode() + b"start_session\n"
    bash = _AUTH.partition(b"|")[0] + b"|dataset=GLBX.MDP3|encoding=json|ts_out=1\n"
    by_id = b"schema=tbbo|stype_in=instrument_id|symbols=432669|start=2025-09-24T19:30\r\n"
    yield "live_server", "other_clients", _PLAN + bash + by_id + b"start_session=1\r\n"
    yield "live_server", "wrong", _PLAN + _AUTH + b"\nschema=ohlcv-1s|symbols=A\nnonsense\nstart_session\n"

    greeting = b"lsg_version=0.8.0\ncram=" + CHALLENGE.encode() + b"\n"
    yield "live_client", "session", bytes([0, 63, 64, 65]) + greeting + b"success=1|session_id=17\n" + b"".join(live)
    yield "live_client", "refused", _PLAN + greeting + b"success=0|error=Authentication failed.\n"
    quiet = [live[0], heartbeat(START), replay_completed(START, "mbo")]
    yield "live_client", "quiet", _PLAN + greeting + b"success=1|session_id=17\n" + b"".join(quiet)

    yield "book", "picture", _PLAN + _PICTURE.tobytes()
    yield "book", "trading", bytes([0, 3, 1, 7]) + _SESSION[:24].tobytes() + _TRADING.tobytes()
    yield "book", "by_hand", bytes([1, 2, 3, 4]) + _by_hand().tobytes()


def _repeated(blocks: int) -> bytes:
    """Return a frame of so many blocks of 128 KiB, each of one byte repeated."""
    headers = [(128 << 10 << 3 | 2).to_bytes(3, "little")] * (blocks - 1) + [(128 << 10 << 3 | 3).to_bytes(3, "little")]
    return FRAME_MAGIC + b"\0\x70" + b"".join(header + b"\0" for header in headers)


def _by_hand() -> MboArray:
    """Return records that meet most of the rules once."""
    tick = 10_000_000
    return stream(
        add("B", 6483 * tick, 5, 1),
        add("B", 6483 * tick, 2, 2),
        add("A", 6484 * tick, 7, 3, flags=0),
        add("A", 6484 * tick, 1, 2**64 - 1),
        cancel("B", 6483 * tick, 2, 1),
        modify("B", 6483 * tick, 9, 1),
        modify("A", 6485 * tick, 7, 3),
        modify("A", 6483 * tick, 1, 1),
        record("T", "B", 6484 * tick, 1, 0, 0),
        record("F", "A", 6484 * tick, 1, 2**64 - 1, 0),
        cancel("A", 6484 * tick, 1, 2**64 - 1),
        add("B", -37_630_000_000, 3, 4),
        add("B", 6483 * tick, 4, 4, LAST | MAYBE_BAD_BOOK),
        add("B", 6480 * tick, 8, 0, LAST | TOB),
        record("A", "B", 2**63 - 1, 0, 0, LAST | TOB),
        add("A", 6490 * tick, 3, 9, SNAPSHOT),
        add("B", 6489 * tick, 3, 10, SNAPSHOT | LAST),
        clear(),
        modify("B", 1, 1, 11),
    )


def main() -> None:
    for target, name, content in seeds():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
