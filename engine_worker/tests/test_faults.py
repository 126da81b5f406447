"""Faults on the whole way: a real streamer, a real engine, real servers, real signals, at 10,000 snapshots a second.

What each replay leaves behind is compared with what the same recording leaves when nothing happens. DAMAGE=all
(``make faults``) makes everything five times as long.
"""

import os
from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from engine_worker.tests.rig import END_S, SOON, Outcome, Rig
from engine_worker.tests.servers import default_database
from replay.streamer.messages import Pace

LONG = 5 if os.environ.get("DAMAGE") == "all" else 1
RECORDS = 60_000 * LONG
TEN_THOUSAND_SNAPSHOTS_A_SECOND: Pace = {"records_per_s": 11_000}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Rig]:
    """Return the processes, with so little memory that what PostgreSQL does not take soon goes to the disk."""
    folder = tmp_path_factory.mktemp("rig")
    made = Rig(folder, RECORDS, disk_mb=64 * LONG, SNAPSHOT_EVERY="1", DEPTH="10", QUEUE_MB="2")
    with django_db_blocker.unblock(), default_database(made.postgres.conninfo):
        try:
            made.start()
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def undisturbed(rig: Rig) -> Outcome:
    """Return what the recording leaves behind when nothing happens."""
    rig.replay(SOON)
    found = rig.outcome(rig.snapshots())
    assert len(found.rows) == len(found.lines) == rig.snapshots() > RECORDS * 0.8
    return found


def assert_undisturbed(rig: Rig, undisturbed: Outcome) -> None:
    """Require nothing lost and nothing twice: in every output what there would be had nothing happened."""
    assert rig.outcome(len(undisturbed.rows)) == undisturbed
    assert len(rig.benchmarks.read_text().splitlines()) == 1
    rig.wait_for(lambda: not rig.not_written(), "empty queues")
    rig.wait_for(lambda: not rig.degraded(), "an engine that is ready")


def test_postgresql_killed_and_restarted(rig: Rig, undisturbed: Outcome) -> None:
    rig.replay(TEN_THOUSAND_SNAPSHOTS_A_SECOND)
    rig.goes_on("table")
    spilled = rig.spilled()
    with rig.postgres.killed():
        rig.wait_for(lambda: "database" in rig.degraded(), "the outage in the probe")
        rig.goes_on("feed file", "live book", times=10 * LONG)
        rig.wait_for(lambda: rig.spilled() > spilled, "snapshots on the disk")
    rig.goes_on("table")
    rig.hurry()
    assert_undisturbed(rig, undisturbed)


def test_postgresql_frozen_over_the_end_of_the_replay_and_thawed(rig: Rig, undisturbed: Outcome) -> None:
    rig.replay(TEN_THOUSAND_SNAPSHOTS_A_SECOND)
    rig.goes_on("table")
    spilled = rig.spilled()
    with rig.postgres.frozen():
        rig.hurry()
        rig.wait_for(rig.is_over, "the end of the replay", END_S)
        rig.wait_for(lambda: rig.lines_written() >= len(undisturbed.lines), "the whole feed file")
        rig.wait_for(lambda: "database" in rig.degraded(), "the outage in the probe")
        rig.wait_for(lambda: rig.spilled() > spilled, "snapshots on the disk")
    assert_undisturbed(rig, undisturbed)


def test_redis_killed_and_restarted(rig: Rig, undisturbed: Outcome) -> None:
    rig.replay(TEN_THOUSAND_SNAPSHOTS_A_SECOND)
    rig.goes_on("live book")
    with rig.redis.killed():
        rig.wait_for(lambda: "broadcast" in rig.degraded(), "the outage in the probe")
        rig.goes_on("table", "feed file")
    rig.goes_on("live book")
    rig.hurry()
    assert_undisturbed(rig, undisturbed)


def test_a_full_disk_under_the_feed_file(rig: Rig, undisturbed: Outcome) -> None:
    if not rig.has_own_disk:
        pytest.skip("no disk of our own here")
    rig.replay(TEN_THOUSAND_SNAPSHOTS_A_SECOND)
    rig.goes_on("feed file")
    with rig.full_disk():
        rig.wait_for(lambda: "No space left" in rig.degraded().get("jsonl", ""), "the outage in the probe")
        assert rig.feed_file.read_bytes().endswith(b"\n")
        rig.goes_on("table", "live book")
    rig.goes_on("feed file")
    rig.hurry()
    assert_undisturbed(rig, undisturbed)


def test_a_feed_that_is_reset_closed_garbled_and_cut_in_a_record(rig: Rig, undisturbed: Outcome) -> None:
    rig.replay(TEN_THOUSAND_SNAPSHOTS_A_SECOND)
    rig.goes_on("table", "live book")
    before = rig.scrape().value("mbo_feed_interruptions_total")
    breaks = (rig.proxy.reset, rig.proxy.close, lambda: rig.proxy.garble(b"no record" * 9), rig.proxy.reset)
    for number, break_off in enumerate(breaks, 1):
        rig.proxy.cut_at = 200_001 if number == len(breaks) else None
        break_off()
        rig.wait_for(
            lambda number=number: rig.scrape().value("mbo_feed_interruptions_total") >= before + number,
            "the next interruption",
        )
        rig.goes_on("table", "live book")
    rig.proxy.cut_at = None
    rig.hurry()
    assert_undisturbed(rig, undisturbed)
