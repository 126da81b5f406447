"""An engine that is killed, cut off or left by its gateway in mid-replay: the table is that of an undisturbed run."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batonic_site.tests.fixtures import Spawn
from engine_worker.tests.kills import Stand, uneven_session
from engine_worker.tests.proxy import TcpProxy

KILLS = int(os.environ.get("KILLS", "2"))
"""``make kills`` has 50."""


@pytest.fixture
def stand(spawn: Spawn, process_env: dict[str, str], data_folder: Path, wait_for: Callable[..., Any]) -> Stand:
    return Stand(spawn, process_env, data_folder, wait_for)


def test_an_engine_killed_at_any_instants_stores_every_snapshot_exactly_once(stand: Stand) -> None:
    records = uneven_session(4000 * (KILLS + 1))
    stand.serve()
    stand.replay(records, {"records_per_s": 700})
    stand.kill_often(KILLS)
    stand.start_engine()
    [line] = stand.finish()
    stand.assert_whole(records)
    assert line["processed"] == len(records) and (line["resumed_at"] or 0) < len(records)


def test_a_connection_that_is_cut_and_a_streamer_that_is_killed_leave_no_hole(
    stand: Stand, free_port: Callable[[], int]
) -> None:
    records = uneven_session(30_000)
    way = TcpProxy("127.0.0.1", int(stand.env["GATEWAY_PORT"]), free_port())
    way.up()
    stand.env |= {"FEED_PORT": str(way.port)}
    streamer = stand.serve()
    stand.start_engine()
    stand.replay(records, {"records_per_s": 4000})
    stand.wait_for(lambda: len(stand.stored()) > 100)
    way.down()
    there = stand.status()["position"]
    stand.wait_for(lambda: stand.status()["position"] > there + 1000)
    way.up()
    stand.wait_for(lambda: stand.said(b"goes on behind") == 1)
    streamer.kill()
    streamer.wait(10)
    stand.serve()
    stand.wait_for(lambda: stand.said(b"goes on behind") == 2)
    [line] = stand.finish()
    way.down()
    stand.assert_whole(records)
    assert line["processed"] == len(records)
