"""What travels between the streamer and those who drive it: states, commands, the status, and where in Redis. Floor 1.

A command is an id in a list and a body under a key of its own. Whoever deletes the body owns the command: the
streamer to carry it out, or the caller to give up. The body expires when its caller has no patience left, and what the
streamer has not done by then it leaves undone; one clock says so, that of Redis. So a command is carried out once or
never, and never after its caller gave up. The answer goes back through a list of its own. Redis holds no truth: when it
is away the market clock goes on, and callers are told that the streamer cannot be reached.

A streamer that hangs, or whose PostgreSQL is away, may have lost the feed and not know it. So each writes the
generation of its lease here with its status: beside a newer one, an older one writes nothing and takes no command.
PostgreSQL being away changes nothing by itself: without it nobody gets a newer lease.
"""

from enum import StrEnum
from typing import Final, Literal, NotRequired, TypedDict


class ReplayState(StrEnum):
    """STARTING lives only in the database, between the row and the streamer's acknowledgement."""

    IDLE = "IDLE"
    STARTING = "STARTING"
    REPLAYING = "REPLAYING"
    PAUSED = "PAUSED"
    DONE = "DONE"
    STOPPED = "STOPPED"
    FAILED = "FAILED"


ACTIVE_STATES: Final = (ReplayState.STARTING, ReplayState.REPLAYING, ReplayState.PAUSED)


MAX_RECORDS_PER_S: Final = 1_000_000_000
MIN_MARKET_TIME: Final = 0.1
MAX_MARKET_TIME: Final = 10_000.0
MAX_SKIP_IDLE_S: Final = 86_400.0
MAX_STEP: Final = 1_000_000_000
"""A step of more than this many units is no step."""


class RecordsPerSecond(TypedDict):
    """A constant pace."""

    records_per_s: int


class MarketTime(TypedDict):
    """As recorded, 0.1 to 10,000 times as fast."""

    market_time: float


Pace = RecordsPerSecond | MarketTime | Literal["max"]
"""How fast records go out."""


class AtRecord(TypedDict):
    """The position that has this many records of the file before it."""

    record: int


class AtTime(TypedDict):
    """The first record captured (ts_recv) at or after this moment: ns as text, a JSON number would lose digits."""

    ts_ns: str


class AtFraction(TypedDict):
    """The position that has this part of the file before it, 0 to 1."""

    fraction: float


class Next(TypedDict):
    """Behind the next one from where the replay is."""

    next: Literal["trade", "crossing", "anomaly", "event", "bbo"]


class Previous(TypedDict):
    """Behind the one before, from where the replay is."""

    previous: Literal["trade", "crossing", "event", "bbo"]


FixedPlace = AtRecord | AtTime | AtFraction
"""A place that is the same wherever the replay is."""

Place = FixedPlace | Next | Previous

StepUnit = Literal["record", "event", "trade", "bbo"]


class PublicationStatus(TypedDict):
    """What there is to tell of a replay."""

    state: ReplayState
    replay_id: int | None
    generation: int
    dataset: str
    pace: Pace | None
    skip_idle_s: float | None
    achieved_records_per_s: int
    position: int  # in the file: records of it before what comes next
    records: int  # of the file
    published: int  # records released since the run began, over all rounds and jumps
    event: int | None  # events before the position; None while the file has no index
    ts_event: str  # of the last record before the position, ns as text: a JSON number would lose digits
    ts_recv: str  # of the same record, as text too
    loops: int
    window_from: int  # positions
    window_to: int
    error: str


class StreamerStatus(PublicationStatus):
    """The streamer's true state: the answer to every command, and its heartbeat in Redis."""

    pid: int
    clients: int
    lag_records: int  # how far the slowest client that follows is behind what is released
    raw_port: int
    gateway_port: int
    lease: NotRequired[int]  # told with it: generation of the lease under which the feed is published; 0 = none
    note: NotRequired[str]


class StartCommand(TypedDict):
    """Everything the streamer needs to publish a file, from its beginning or from where a dead streamer was."""

    replay_id: int
    generation: int
    dataset: str
    path: str
    pace: Pace
    skip_idle_s: float | None  # market time without records that is longer than this is passed over
    loop: bool
    max_msgs: int  # -1 = all
    window_from: FixedPlace | None  # None = the beginning of the file
    window_to: FixedPlace | None  # None = its end
    start_record: int | None  # None = the beginning of the window, else the position to go on from
    published: int  # records published before, which max_msgs counts too
    loops: int  # rounds completed before
    paused: bool


class PaceArgs(TypedDict):
    """What ``pace`` takes; without skip_idle_s it stays as it is."""

    pace: Pace
    skip_idle_s: NotRequired[float | None]


class SeekArgs(TypedDict):
    """What ``seek`` takes."""

    to: Place


class StepArgs(TypedDict):
    """What ``step`` takes: so many units on, or back when it is negative."""

    unit: StepUnit
    by: int


STATUS_KEY: Final = "batonic:streamer:{feed}:status"
"""Redis: StreamerStatus as JSON text; it expires when the streamer is gone."""

LEASE_KEY: Final = "batonic:streamer:{feed}:lease"
"""Redis: the newest lease generation of those that publish the feed; it expires with the status."""

COMMANDS_KEY: Final = "batonic:streamer:{feed}:commands"
COMMAND_KEY: Final = "batonic:streamer:{feed}:command:{id}"
ANSWER_KEY: Final = "batonic:streamer:{feed}:answer:{id}"


class StreamerRefused(Exception):
    """The streamer answered that it cannot do this, and why."""

    lease = 0
    """Of the streamer that answered, as in its status."""
