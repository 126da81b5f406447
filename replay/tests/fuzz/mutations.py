"""Ways to change an input so that it stays near a valid one; atheris and the seeded run of `make test` use the same.

Each takes bytes and a random generator and returns other bytes; the same generator state gives the same bytes.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from orderbook.book.mbo import MBO, UNDEF_PRICE, Action, Side

PLAN_BYTES: Final = 4
"""Inputs of streams and files begin with a plan: how the file is named, or in which pieces the stream arrives."""

_MOST_BYTES: Final = 10_000

Mutate = Callable[[bytes, random.Random], bytes]

_EDGES: Final = [0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
_CODES: Final = {"action": [*Action, 0, ord("X")], "side": [*Side, 0, ord("X")]}
_RECORD_EDGES: Final = {
    "price": [0, -1, 1, UNDEF_PRICE, UNDEF_PRICE - 1, -(2**63), 64_830_000_000],
    "size": [0, 1, 2, 2**32 - 1],
    "flags": [0, 2, 4, 8, 32, 40, 64, 128, 130, 168, 192, 255],
}


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change a byte, a number, or the length."""
    at, size = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 8, rng.randrange(1, 65)))
    before, here, behind = data[:at], data[at : at + size], data[at + size :]
    match rng.randrange(7):
        case 0:
            here = rng.randbytes(len(here))
        case 1:
            edge = rng.choice(_EDGES) % 256 ** min(size, 8)
            here = edge.to_bytes(min(size, 8), "little")
        case 2:
            here = bytes(byte ^ 1 << rng.randrange(8) for byte in here[:1]) + here[1:]
        case 3:
            here = b""
        case 4:
            here *= 2
        case 5:
            start = rng.randrange(len(data) + 1)
            here += data[start : start + size]
        case _:
            behind = b""
    return before + here + behind


def text_mutator(delimiters: bytes, tokens: Sequence[bytes]) -> Mutate:
    """Return what changes a text by its fields: the runs between delimiters."""
    splitter = re.compile(b"([" + re.escape(delimiters) + b"])")

    def mutate(data: bytes, rng: random.Random) -> bytes:
        if rng.randrange(4) == 0:
            return mutate_bytes(data, rng)
        parts = splitter.split(data)
        at = rng.randrange(len(parts))
        match rng.randrange(8):
            case 0 | 1 | 2:
                parts[at] = rng.choice(tokens)
            case 3:
                parts[at] = rng.choice(parts)
            case 4:
                parts[at] *= rng.choice((2, 3, 40, _MOST_BYTES // max(len(parts[at]), 1)))
            case 5:
                parts[at : at + rng.randrange(1, 5)] = []
            case 6:
                start = rng.randrange(len(parts))
                parts[at:at] = parts[start : start + rng.choice((1, 2, 30))]
            case _:
                other = rng.randrange(len(parts))
                parts[at], parts[other] = parts[other], parts[at]
        return b"".join(parts)

    return mutate


def column_mutator(tokens: Mapping[str, Sequence[bytes]], otherwise: Mutate) -> Mutate:
    """Return what often puts a column's own tokens into a line of a CSV, and else does something else."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        lines = data.split(b"\n")
        names = lines[0].split(b",")
        chosen = rng.randrange(len(lines))
        fields = lines[chosen].split(b",")
        at = rng.randrange(len(fields))
        name = names[at].decode("latin-1").strip() if at < len(names) else ""
        if chosen == 0 or name not in tokens or rng.randrange(3) == 0:
            return otherwise(data, rng)
        fields[at] = rng.choice(tokens[name])
        lines[chosen] = b",".join(fields)
        return b"\n".join(lines)

    return mutate


def record_mutator(first: Callable[[bytes], int], inserts: Sequence[bytes] = ()) -> Mutate:
    """Return what changes whole records and their fields; ``first`` says where in an input they start."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        head = min(first(data), len(data))
        count = (len(data) - head) // MBO.itemsize
        if count == 0 or rng.randrange(4) == 0:
            return mutate_bytes(data, rng)
        records = np.frombuffer(data, MBO, count, head).copy()
        rest = data[head + records.nbytes :]
        at, other = rng.randrange(count), rng.randrange(count)
        match rng.randrange(6):
            case 0 | 1 | 2:
                _change_field(records, at, other, rng)
            case 3:
                records = np.delete(records, at)
            case 4:
                records = np.insert(records, at, records[other])
            case _:
                where = head + at * MBO.itemsize
                return data[:where] + (rng.choice(inserts) if inserts else b"") + data[where:]
        return data[:head] + records.tobytes() + rest

    return mutate


def _change_field(records: np.ndarray, at: int, other: int, rng: random.Random) -> None:
    """Give a field another record's value, or one from the edge of its range."""
    name = rng.choice([name for name in MBO.names or () if name not in ("length", "rtype")])
    if rng.randrange(2):
        records[name][at] = records[name][other]
        return
    values = _CODES.get(name) or _RECORD_EDGES.get(name) or _EDGES
    info = np.iinfo(MBO[name])
    records[name][at] = min(max(int(rng.choice(values)), int(info.min)), int(info.max))


def split_plan(data: bytes) -> tuple[bytes, bytes]:
    """Return the plan of an input and what lies behind it."""
    return data[:PLAN_BYTES].ljust(PLAN_BYTES, b"\0"), data[PLAN_BYTES:]


def with_plan(mutate: Mutate) -> Mutate:
    """Return what changes the plan in front of an input sometimes, and else what lies behind it."""

    def both(data: bytes, rng: random.Random) -> bytes:
        plan, rest = split_plan(data)
        if rng.randrange(6) == 0:
            return bytes(rng.choice((0, 1, 7, rng.randrange(256))) for _ in plan) + rest
        return plan + mutate(rest, rng)

    return both
