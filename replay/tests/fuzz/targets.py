"""What is fuzzed: everything that turns foreign bytes into records, values or commands.

A target takes any bytes and returns. An exception that its decoder does not declare goes through, and so does the
AssertionError of a property that does not hold: both are findings.
"""

import random
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from replay.feed.dbn_metadata import PREFIX_BYTES
from replay.feed.zstd_source import FRAME_MAGIC
from replay.tests.fuzz import tokens
from replay.tests.fuzz.books import fuzz_book
from replay.tests.fuzz.files import fuzz_recording, fuzz_zstd
from replay.tests.fuzz.live import HANDSHAKE_LINES, fuzz_live_client, fuzz_live_server
from replay.tests.fuzz.mutations import Mutate, column_mutator, mutate_bytes, record_mutator, text_mutator, with_plan
from replay.tests.fuzz.streams import fuzz_csv, fuzz_dbn, fuzz_metadata
from replay.tests.fuzz.texts import fuzz_commands, fuzz_socket, fuzz_values


class Target(NamedTuple):
    """One thing to fuzz, how its inputs are changed, and how long they get."""

    run: Callable[[bytes], None]
    mutate: Mutate
    max_bytes: int = 4096


def _after_metadata(data: bytes) -> int:
    """Return where the records of a DBN stream start."""
    return PREFIX_BYTES + int.from_bytes(data[4:PREFIX_BYTES], "little")


def _mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Change a JSON text; now and then nest one of its values as deeply as Python just follows, or not quite."""
    values = [*re.finditer(rb'(?<=:)("[^"]*"|\d+)', data)]
    if not values or rng.randrange(8):
        return _json_fields(data, rng)
    value, depth = rng.choice(values), rng.randrange(900, 1000)
    return data[: value.start()] + b"[" * depth + b"]" * depth + data[value.end() :]


_json_fields: Final = text_mutator(b'{}[]:,"', tokens.JSON)


_lines: Final = column_mutator(tokens.CSV_COLUMNS, text_mutator(b",\n", tokens.CSV))
_records: Final = record_mutator(_after_metadata, tokens.OTHER_RECORDS)


def _mutate_file(data: bytes, rng: random.Random) -> bytes:
    """Change a file by what it holds."""
    if data.startswith(FRAME_MAGIC):
        return mutate_bytes(data, rng)
    return (_records if data.startswith(b"DBN") else _lines)(data, rng)


_control_lines: Final = text_mutator(b"|=,\n", tokens.LIVE)


def _mutate_gateway(data: bytes, rng: random.Random) -> bytes:
    """Change what a gateway says: its lines sometimes, and else the stream behind them."""
    *lines, stream = data.split(b"\n", HANDSHAKE_LINES)
    said = b"\n".join([*lines, b""])
    if rng.randrange(4) == 0 or len(lines) < HANDSHAKE_LINES:
        return _control_lines(said, rng) + stream
    return said + _records(stream, rng)


TARGETS: Final = {
    "metadata": Target(fuzz_metadata, mutate_bytes, 2048),
    "dbn": Target(fuzz_dbn, with_plan(_records), 8192),
    "csv": Target(fuzz_csv, with_plan(_lines), 8192),
    "recording": Target(fuzz_recording, with_plan(_mutate_file)),
    "zstd": Target(fuzz_zstd, mutate_bytes),
    "values": Target(fuzz_values, text_mutator(b"+-.:T ", tokens.VALUES), 8192),
    "socket": Target(fuzz_socket, _mutate_json, 8192),
    "commands": Target(fuzz_commands, _mutate_json, 8192),
    "live_server": Target(fuzz_live_server, with_plan(_control_lines)),
    "live_client": Target(fuzz_live_client, with_plan(_mutate_gateway), 8192),
    "book": Target(fuzz_book, with_plan(record_mutator(lambda data: 0))),
}
