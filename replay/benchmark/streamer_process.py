"""A streamer in a process of its own, as benchmarks drive it: no database, no Redis, one recording. Floor 1."""

import asyncio
import logging
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

from orderbook.book import kernel_market
from replay.feed.sources import open_recording
from replay.feed.stream import FramingName
from replay.streamer.doorman import Keys
from replay.streamer.gateway import GatewayConfig
from replay.streamer.messages import Pace, StartCommand
from replay.streamer.server import Streamer

KEY: Final = "db-benchmarkbenchmarkbenchmark00"


class Spent(NamedTuple):
    """What a replay took."""

    begun_ns: int
    """When it was ordered to replay, on the monotonic clock that all processes share."""
    cpu_s: float


def start_command(path: Path, pace: Pace) -> StartCommand:
    """Return the order to replay a file once, whole."""
    return {
        "replay_id": 1,
        "generation": 1,
        "dataset": path.name,
        "path": str(path),
        "pace": pace,
        "skip_idle_s": None,
        "loop": False,
        "max_msgs": -1,
        "window_from": None,
        "window_to": None,
        "start_record": None,
        "published": 0,
        "loops": 0,
        "paused": False,
    }


def run(path: Path, control: Connection, raw: FramingName | None = None) -> None:
    """Serve a recording on a free port, and tell the port; then follow orders until hung up.

    A pace is replayed. None says that everybody has the replay, and is answered with what was Spent on it. The port is
    that of the live protocol; of the raw feed where its framing is given.
    """
    logging.disable(logging.INFO)
    kernel_market.warm_up()
    asyncio.run(_serve(path, control, raw))


async def _serve(path: Path, control: Connection, raw: FramingName | None) -> None:
    recording = open_recording(path)
    gateway = GatewayConfig(port=0, keys=Keys(lambda bucket_id: [KEY]))
    streamer = Streamer(lambda asked: recording, raw or "dbn", "127.0.0.1", 0, gateway=gateway)
    await streamer.listen()
    control.send(streamer.gateway_port if raw is None else streamer.port)
    try:
        while True:
            pace: Pace = await asyncio.to_thread(control.recv)
            cpu_s, begun_ns = time.process_time(), time.monotonic_ns()
            await streamer.start(start_command(path, pace))
            await asyncio.to_thread(control.recv)
            control.send(Spent(begun_ns, time.process_time() - cpu_s))
    except EOFError:
        await streamer.close()
