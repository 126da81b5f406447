"""The control messages of the live protocol (port 13000): what each side says in lines of text. Floor 1.

The order on the wire: Greeting, Challenge (server); AuthRequest (client); AuthResponse (server); any number of
SubscriptionRequest, then SessionStart (client). From then on the server sends records, and the client may still
subscribe. Reading what clients send is tolerant; writing is what the strictest of them takes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, Self, cast

from orderbook.book.mbo import UNDEF_TIMESTAMP
from replay.feed.cram import Response, parse_response
from replay.feed.dbn_metadata import SYMBOL_BYTES, checked_name
from replay.feed.live_line import Fields, join_line, split_line
from replay.feed.stream import FeedError, shown

_OURS: Final = "+batonic"
"""What our own engine knows a gateway of ours by, of whatever release."""
LSG_VERSION: Final = f"0.8.0{_OURS}"
"""The vendor's number, and ours behind it: clients only show it."""
SCHEMAS: Final = ("mbo", "trades", "tbbo", "mbp-1", "mbp-10", "bbo-1s")
STYPES: Final = ("raw_symbol", "instrument_id")
ALL_SYMBOLS: Final = "ALL_SYMBOLS"
MAX_SYMBOLS_PER_LINE: Final = 500
HEARTBEAT_INTERVAL_S: Final = 30
MIN_HEARTBEAT_INTERVAL_S: Final = 5
MAX_HEARTBEAT_INTERVAL_S: Final = 1800

Encoding = Literal["dbn", "csv", "json"]
Compression = Literal["none", "zstd"]
SlowReaderBehavior = Literal["warn", "skip"]

_DATASET_BYTES: Final = 15
_MAX_U32: Final = 2**32 - 1
_MAX_I64: Final = 2**63 - 1
_MAX_ERROR: Final = 300


@dataclass(frozen=True, slots=True)
class Greeting:
    """The server's first line."""

    lsg_version: str = LSG_VERSION

    @classmethod
    def parse(cls, line: bytes) -> Self:
        return cls(Fields("greeting", split_line(line)).text("lsg_version"))

    @property
    def is_ours(self) -> bool:
        """Whether the gateway is one of ours, and understands what we have added."""
        return self.lsg_version.endswith(_OURS)

    def encode(self) -> bytes:
        return join_line({"lsg_version": self.lsg_version})


@dataclass(frozen=True, slots=True)
class Challenge:
    """The server's second line: what the client hashes its key with."""

    cram: str

    @classmethod
    def parse(cls, line: bytes) -> Self:
        return cls(Fields("challenge", split_line(line)).text("cram"))

    def encode(self) -> bytes:
        return join_line({"cram": self.cram})


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """Who the client is, which dataset it wants, and how the stream shall be written."""

    auth: Response
    dataset: str
    encoding: Encoding = "dbn"
    compression: Compression = "none"
    ts_out: bool = False
    pretty_px: bool = False
    pretty_ts: bool = False
    heartbeat_interval_s: int = HEARTBEAT_INTERVAL_S
    slow_reader_behavior: SlowReaderBehavior | None = None
    client: str = ""

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Read a line in any order of keys; only auth and dataset must be there. Raises FeedError."""
        fields = Fields("authentication", split_line(line))
        behavior = fields.choice("slow_reader_behavior", ("warn", "skip", ""), "")
        dataset = fields.text("dataset", most=_DATASET_BYTES)
        if not dataset.isascii():  # it goes into the metadata
            raise fields.fault("dataset", "ASCII characters")
        return cls(
            parse_response(fields.text("auth")),
            dataset,
            cast(Encoding, fields.choice("encoding", ("dbn", "csv", "json"), "dbn")),
            cast(Compression, fields.choice("compression", ("none", "zstd"), "none")),
            fields.flag("ts_out"),
            fields.flag("pretty_px"),
            fields.flag("pretty_ts"),
            fields.number("heartbeat_interval_s", MIN_HEARTBEAT_INTERVAL_S, MAX_HEARTBEAT_INTERVAL_S)
            or HEARTBEAT_INTERVAL_S,
            cast(SlowReaderBehavior, behavior) if behavior else None,
            fields.text("client", "", most=500),
        )

    def encode(self) -> bytes:
        return join_line(
            {
                "auth": f"{self.auth.digest}-{self.auth.bucket_id}",
                "dataset": self.dataset,
                "encoding": self.encoding,
                "ts_out": int(self.ts_out),
                "compression": self.compression,
                "pretty_px": 1 if self.pretty_px else None,
                "pretty_ts": 1 if self.pretty_ts else None,
                "heartbeat_interval_s": self.heartbeat_interval_s,
                "slow_reader_behavior": self.slow_reader_behavior,
                "client": self.client or None,
            }
        )


@dataclass(frozen=True, slots=True)
class AuthResponse:
    """The server's verdict: a session id, or why not."""

    success: bool
    session_id: int | None = None
    error: str | None = None

    @classmethod
    def parse(cls, line: bytes) -> Self:
        fields = Fields("authentication response", split_line(line))
        success = fields.flag("success")
        error = fields.text("error", "", most=len(line)) or None
        return cls(success, fields.number("session_id", 0, UNDEF_TIMESTAMP), error)

    def encode(self) -> bytes:
        """Return the line; the session id is a number, because clients in C++ read one."""
        error = None if self.error is None else _one_value(self.error)
        return join_line({"success": int(self.success), "error": error, "session_id": self.session_id})


def _one_value(text: str) -> str:
    """Return a text that fits between two bars."""
    return "".join(character if character.isprintable() else " " for character in text[:_MAX_ERROR]).replace("|", "/")


@dataclass(frozen=True, slots=True)
class SubscriptionRequest:
    """What a client wants to receive. More than 500 symbols travel in several lines, of which one is the last."""

    schema: str
    symbols: tuple[str, ...]
    stype_in: str = "raw_symbol"
    start_ns: int | None = None
    """Where to begin, inclusive; 0 is the first record there is, None the present."""
    snapshot: bool = False
    """The books of that moment first. Together with a start it is ours; the vendor's gateway refuses it."""
    replay: int | None = None
    """Ours too, beside a snapshot: the replay that the start is in, 0 for any; another is wanted from its beginning."""
    id: int | None = None
    is_last: bool = True

    @property
    def all_symbols(self) -> bool:
        return ALL_SYMBOLS in self.symbols

    @classmethod
    def read(cls, values: Mapping[str, str]) -> Self:
        """Read the values of a line, of which only schema and symbols must be there. Raises FeedError."""
        fields = Fields("subscription", values)
        stype_in = fields.choice("stype_in", STYPES, "raw_symbol")
        request = cls(
            fields.choice("schema", SCHEMAS),
            _symbols(fields, values.get("symbols", ""), stype_in),
            stype_in,
            fields.instant("start"),
            fields.flag("snapshot"),
            fields.number("replay", 0, _MAX_I64),
            fields.number("id", 0, _MAX_U32),
            fields.flag("is_last", True),
        )
        if request.snapshot and request.schema != "mbo":
            raise fields.fault("snapshot", "0 with any schema but mbo")
        if request.replay is not None and not request.snapshot:
            raise fields.fault("replay", "none without snapshot=1")
        return request

    def lines(self) -> Iterator["SubscriptionRequest"]:
        """Cut the request into what fits into a line each."""
        for begin in range(0, len(self.symbols), MAX_SYMBOLS_PER_LINE):
            end = begin + MAX_SYMBOLS_PER_LINE
            yield replace(self, symbols=self.symbols[begin:end], is_last=end >= len(self.symbols))

    def encode(self) -> bytes:
        """Return the lines of the request."""
        return b"".join(
            join_line(
                {
                    "schema": line.schema,
                    "stype_in": line.stype_in,
                    "symbols": ",".join(line.symbols),
                    "start": line.start_ns,
                    "snapshot": int(line.snapshot),
                    "replay": line.replay,
                    "id": line.id,
                    "is_last": int(line.is_last),
                }
            )
            for line in self.lines()
        )


def _symbols(fields: Fields, text: str, stype_in: str) -> tuple[str, ...]:
    symbols = tuple(text.split(","))
    if len(symbols) > MAX_SYMBOLS_PER_LINE:
        found = str(len(symbols))
        raise FeedError("subscription, symbols", f"at most {MAX_SYMBOLS_PER_LINE} in a line", found)
    for symbol in symbols:
        try:
            checked_name(symbol, SYMBOL_BYTES)
        except ValueError as error:
            raise fields.fault("symbols", f"names of at most {SYMBOL_BYTES} printable ASCII characters") from error
        number = symbol.isascii() and symbol.isdigit() and len(symbol) <= 10 and int(symbol) <= _MAX_U32
        if not symbol or (stype_in == "instrument_id" and symbol != ALL_SYMBOLS and not number):
            kind = "instrument ids" if stype_in == "instrument_id" else "symbols"
            raise FeedError("subscription, symbols", f"{kind}, separated by commas", shown(symbol.encode()))
    return symbols


@dataclass(frozen=True, slots=True)
class SessionStart:
    """Records from now on."""

    def encode(self) -> bytes:
        return join_line({"start_session": 0})


def parse_request(line: bytes) -> SubscriptionRequest | SessionStart:
    """Read what a client says after it was authenticated. ``start_session`` has any value or none. Raises FeedError."""
    values = split_line(line)
    if "start_session" in values:
        return SessionStart()
    if "schema" not in values:
        raise FeedError("control line", "a subscription or start_session", shown(line))
    return SubscriptionRequest.read(values)
