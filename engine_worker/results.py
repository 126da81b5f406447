"""What a finished replay leaves on disk: a benchmark line and the final books. Floor 3."""

import json
import logging
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from engine_worker.config import EngineConfig
from engine_worker.run import Run
from engine_worker.tracks import Track
from orderbook.book.encoding import final_book_json
from orderbook.book.mbo import Side
from orderbook.book.snapshot import BookState, book_state
from orderbook.live import final_book_name

_TAIL_BYTES: Final = 64 << 10
_SAME_REPLAY: Final = (
    "engine", "gateway", "replay_id", "processed", "book", "depth", "snapshot_every", "snapshot_ms", "max_msgs",
)  # fmt: skip

log = logging.getLogger(__name__)


def write_results(run: Run, config: EngineConfig) -> str:
    """Write all of it; nothing for a run that applied nothing. Returns why it could not be done, empty when it was."""
    about = {"run_id": run.run_id}
    if not run.records:
        log.info("replay run %s ends: nothing was applied", run.run_id, extra=about)
        return ""
    line = benchmark_line(run, config)
    rate = line["throughput_msgs_per_s"]
    log.info("replay run %s ends: %s records, %s/s", run.run_id, line["processed"], rate, extra=about)
    faults = [*_write_final_books(run, config), *_append_line(run, config, line)]
    for fault in faults:
        log.error("results of run %s cannot be written: %s", run.run_id, fault, extra=about)
    return "; ".join(faults)


def _write_final_books(run: Run, config: EngineConfig) -> list[str]:
    """Write the books that can be written; return why the others cannot."""
    faults = []
    for track in run.tracks.values():
        try:
            write_final_book(config.final_book_folder, track)
        except OSError as error:
            faults.append(str(error))
    return faults


def _append_line(run: Run, config: EngineConfig, line: dict[str, Any]) -> list[str]:
    """Append the benchmark line, whatever became of the books; return why it cannot be appended."""
    try:
        if not append_line(config.bench_log_path, line):
            log.info("replay %d has its benchmark line already", run.replay_id, extra={"run_id": run.run_id})
    except OSError as error:
        return [str(error)]
    return []


def benchmark_line(run: Run, config: EngineConfig) -> dict[str, Any]:
    """Return what one replay took.

    ``apply_*``: decoding and applying one record, clock reads included (about 30 ns), sampled. ``snap_*``: what each
    snapshot waited from the end of its event, when the kernel reads the clock, until every store could read it (the
    writing of its levels, the hand-over), and what encoding took each store a snapshot of its last batch, on its own
    thread. The time until a store takes it is not in it; live books go out every PUSH_MS.
    ``elapsed_s``: from the arrival of the first record to the last one applied. ``resumed_at``: the records that were
    applied before this engine, or this connection, went on with the replay; what is measured is the rest. Else null.
    ``replay_id``: what the gateway calls the replay; 0 where it does not say.
    """
    elapsed_s = (run.last_ns - run.first_ns) / 1e9
    return {
        "ts": datetime.now(UTC).isoformat(),
        "engine": config.name,
        "run_id": run.run_id,
        "gateway": f"{config.host}:{config.port}",
        "replay_id": run.replay_id,
        "symbols": run.symbols,
        "processed": run.records,
        "resumed_at": run.resumed_at,
        "elapsed_s": elapsed_s,
        "throughput_msgs_per_s": round((run.records - (run.resumed_at or 0)) / elapsed_s, 1) if elapsed_s else 0.0,
        "apply_p50_us": run.apply_ns.percentile(50) / 1e3,
        "apply_p95_us": run.apply_ns.percentile(95) / 1e3,
        "apply_p99_us": run.apply_ns.percentile(99) / 1e3,
        "apply_max_us": run.apply_ns.max_ns / 1e3,
        "apply_samples": run.apply_ns.count,
        "snap_p50_ms": run.snap_ns.percentile(50) / 1e6,
        "snap_p95_ms": run.snap_ns.percentile(95) / 1e6,
        "snap_p99_ms": run.snap_ns.percentile(99) / 1e6,
        "snap_max_ms": run.snap_ns.max_ns / 1e6,
        "snapshots": run.snapshots,
        "framing": config.framing,
        "book": config.book,
        "depth": config.depth,
        "snapshot_every": config.snapshot_every,
        "snapshot_ms": config.snapshot_ms,
        "max_msgs": config.max_msgs,
        "push_ms": config.push_ms,
    }


def append_line(path: Path, line: dict[str, Any]) -> bool:
    """Append one JSON line in one write, unless its replay has one: that of an engine that was killed behind the end.

    Returns whether it was appended. Looks at the last 64 KB. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        if line["replay_id"] and any(_is_of_same_replay(other, line) for other in _last_lines(file)):
            return False
        file.write(json.dumps(line).encode() + b"\n")
    return True


def _last_lines(file: BinaryIO) -> list[bytes]:
    file.seek(max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
    return file.read().splitlines()


def _is_of_same_replay(other: bytes, line: dict[str, Any]) -> bool:
    """Say whether another line, if it is one, is of the same replay had in the same way."""
    try:
        found = json.loads(other)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and all(found.get(name) == line[name] for name in _SAME_REPLAY)


def write_final_book(folder: Path, track: Track) -> bool:
    """Write every level of a book in place of the one before, at once; an empty book replaces nothing.

    Another engine may write the same book at the same time: each has a draft of its own, and the last one stays.
    Returns whether it was written. Raises OSError.
    """
    if book_state(track.book.bbo()) is BookState.EMPTY:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / final_book_name(track.symbol)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    try:
        with draft.open("x") as file:
            file.write(final_book_json(track.symbol, track.book.levels(Side.BID), track.book.levels(Side.ASK)))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return True
