"""What travels between the streamer and those who drive it: states, commands, the status, and where in Redis. Floor 1.

A command is an id in a list and a body under a key of its own. Whoever deletes the body owns the command: the
streamer to carry it out, or the caller to give up. So a command is carried out once or never, and never after
its caller gave up. The answer goes back through a list of its own. Redis holds no truth: when it is away the
market clock goes on, and callers are told that the streamer cannot be reached.
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


class RecordsPerSecond(TypedDict):
    """A constant pace."""

    records_per_s: int


Pace = RecordsPerSecond | Literal["max"]
"""How fast records go out. Market-time paces join later in the same shape."""


class StreamerStatus(TypedDict):
    """The streamer's true state: the answer to every command, and its heartbeat in Redis."""

    state: ReplayState
    replay_id: int | None
    generation: int
    dataset: str
    pid: int
    pace: Pace | None
    achieved_records_per_s: int
    position: int
    records: int
    ts_event: str  # ns as text: a JSON number would lose digits
    loops: int
    clients: int
    raw_port: int
    error: str
    note: NotRequired[str]


class StartCommand(TypedDict):
    """Everything the streamer needs to publish a file."""

    replay_id: int
    generation: int
    dataset: str
    path: str
    pace: Pace
    loop: bool
    max_msgs: int  # -1 = all
    start_record: int


STATUS_KEY: Final = "batonic:streamer:{feed}:status"
"""Redis: StreamerStatus as JSON text; it expires when the streamer is gone."""

COMMANDS_KEY: Final = "batonic:streamer:{feed}:commands"
COMMAND_KEY: Final = "batonic:streamer:{feed}:command:{id}"
ANSWER_KEY: Final = "batonic:streamer:{feed}:answer:{id}"


class StreamerRefused(Exception):
    """The streamer answered that it cannot do this, and why."""
