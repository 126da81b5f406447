"""The live protocol cut off at any byte, and a gateway that vanishes without a word: the product's own gateway.

DAMAGE=all (``make faults``) cuts at every byte of the first 4 KB, the handshake among them; the suite at some.
"""

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine_worker.engine import Engine
from engine_worker.feed_client import FeedClient
from engine_worker.ledger import Ledger
from engine_worker.live_feed import Clock, Login, live_feed
from engine_worker.mailbox import Progress
from engine_worker.resumption import Resumption
from engine_worker.tests.builders import KEY, SYMBOLS, Desk, rows, session
from engine_worker.tests.proxy import TcpProxy
from replay.tests.recordings import recording
from replay.tests.serving import Served, serving

WaitFor = Callable[..., object]

WINDOW = 4096
CUTS = range(1, WINDOW) if os.environ.get("DAMAGE") == "all" else sorted(random.Random(1).sample(range(1, WINDOW), 24))
FAST = 50


class Store:
    """What makes an engine ask for a replay from its beginning: a database, in which nothing is yet."""

    progress = Progress(0, 0, 0)


@contextmanager
def following(engine: Engine, proxy: TcpProxy, clock_ns: Clock = time.monotonic_ns) -> Iterator[None]:
    """Let an engine follow a gateway on a thread, as long as the block lasts."""
    login = Login(KEY, "BATONIC.REPLAY", ("ALL_SYMBOLS",))
    feed = FeedClient("127.0.0.1", proxy.port, live_feed(login, clock_ns, engine.resumption.known))
    stop = threading.Event()
    thread = threading.Thread(target=engine.run, args=(feed, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def proxied(served: Served, port: int) -> Iterator[TcpProxy]:
    proxy = TcpProxy("127.0.0.1", served.port, port)
    proxy.up()
    yield proxy
    proxy.down()


def is_over(desk: Desk) -> bool:
    path = desk.engine.config.bench_log_path
    return path.exists() and path.stat().st_size > 0


def assert_whole(desk: Desk, clean: Desk) -> None:
    """Require what an undisturbed replay leaves behind."""
    assert rows(desk.snapshots) == rows(clean.snapshots)
    [line] = desk.engine.config.bench_log_path.read_text().splitlines()
    assert json.loads(line)["processed"] == clean.engine.counters.applied
    counters = desk.engine.counters
    assert counters.received == counters.applied + counters.ignored + counters.rejected


@pytest.fixture
def clean(fast_folder: Path) -> Desk:
    desk = Desk(fast_folder / "clean", snapshot_every=1)
    desk.feed(session(400))
    desk.engine.end()
    return desk


def test_the_live_feed_cut_at_any_byte_loses_and_doubles_nothing(
    fast_folder: Path, clean: Desk, free_port: Callable[[], int], wait_for: WaitFor
) -> None:
    with serving(recording(session(400), SYMBOLS)) as served, proxied(served, free_port()) as proxy:
        served.replay({"records_per_s": 100_000})
        served.until(lambda status: status["state"] == "DONE")
        partial = 0
        for cut in CUTS:
            resumption = Resumption(Ledger(Store(), None, lambda first, stop: None))
            desk = Desk(fast_folder / str(cut), snapshot_every=1, resumption=resumption)
            before, proxy.cut_at = proxy.connections, cut
            with following(desk.engine, proxy):
                wait_for(lambda before=before: proxy.connections > before)
                proxy.cut_at = None
                wait_for(lambda desk=desk: is_over(desk), what=f"the end of the replay that was cut at {cut}")
            assert_whole(desk, clean)
            partial += desk.engine.counters.partial_frames
    assert len(CUTS) * 0.9 < partial <= len(CUTS)


def test_a_gateway_that_vanished_is_noticed_by_its_silence_and_nothing_is_lost(
    fast_folder: Path, clean: Desk, free_port: Callable[[], int], wait_for: WaitFor
) -> None:
    desk = Desk(fast_folder, snapshot_every=1)
    with (
        serving(recording(session(400), SYMBOLS), heartbeat_s=0.1) as served,
        proxied(served, free_port()) as proxy,
        following(desk.engine, proxy, lambda: time.monotonic_ns() * FAST),
    ):
        served.following()
        served.replay({"records_per_s": 1000})
        wait_for(lambda: desk.engine.counters.applied > 100)
        proxy.hold()
        wait_for(lambda: desk.engine.counters.interruptions == 1, what="the silence being noticed")
        wait_for(lambda: is_over(desk), what="the end of the replay")
    assert proxy.connections >= 2
    assert_whole(desk, clean)
