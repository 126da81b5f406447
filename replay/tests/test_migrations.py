"""What the migrations leave behind: the owner's SQL view, the groups, and nothing to migrate."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from history.models import Snapshot

COLUMNS = ["ts", "symbol", "best_bid_px", "best_bid_sz", "best_ask_px", "best_ask_sz", "mid", "spread"]
pytestmark = pytest.mark.django_db


def rows() -> list[dict[str, object]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM snapshots ORDER BY ts")
        assert cursor.description is not None
        assert [column.name for column in cursor.description] == COLUMNS
        return [dict(zip(COLUMNS, row, strict=True)) for row in cursor]


def store(ts_event: int, bid: int | None, ask: int | None) -> None:
    Snapshot.objects.create(
        symbol="CLX5",
        ts_event=ts_event,
        sequence=1,
        ts_recv=ts_event,
        best_bid_px=bid,
        best_bid_sz=100,
        best_bid_ct=1,
        best_ask_px=ask,
        best_ask_sz=50,
        best_ask_ct=1,
    )


def test_the_view_shows_exact_decimals_and_times() -> None:
    store(1_758_742_200_001_385_399, 64_830_000_000, 64_840_000_000)
    assert rows() == [
        {
            "ts": datetime(2025, 9, 24, 19, 30, 0, 1385, tzinfo=UTC),
            "symbol": "CLX5",
            "best_bid_px": Decimal("64.83"),
            "best_bid_sz": 100,
            "best_ask_px": Decimal("64.84"),
            "best_ask_sz": 50,
            "mid": Decimal("64.835"),
            "spread": Decimal("0.01"),
        }
    ]


def test_the_view_loses_no_digit_of_extreme_prices_and_late_times() -> None:
    largest = 2**63 - 2
    store(largest, largest - 1, largest)
    store(1, -37_630_000_001, -37_630_000_000)
    early, late = rows()
    assert early["mid"] == Decimal("-37.6300000005")
    assert early["ts"] == datetime(1970, 1, 1, tzinfo=UTC)
    assert late["best_bid_px"] == Decimal("9223372036.854775805")
    assert late["mid"] == Decimal("9223372036.8547758055")
    assert late["ts"] == datetime(2262, 4, 11, 23, 47, 16, 854775, tzinfo=UTC)


def test_the_view_shows_an_empty_side_as_null() -> None:
    store(1000, None, 5)
    assert (rows()[0]["best_bid_px"], rows()[0]["mid"], rows()[0]["spread"]) == (None, None, None)


def test_operators_may_control_replays_and_viewers_may_not() -> None:
    viewer, operator = User.objects.create_user("vera"), User.objects.create_user("otto")
    viewer.groups.add(Group.objects.get(name="viewer"))
    operator.groups.add(Group.objects.get(name="operator"))
    assert not viewer.has_perm("replay.control_replay")
    assert operator.has_perm("replay.control_replay")


def test_a_position_that_counted_all_rounds_becomes_a_place_in_the_file() -> None:
    """Each row: state, loop, position before; position, published and loops after, in a file of 100 records."""
    expected = [
        ("REPLAYING", True, 250, (50, 250, 2)),
        ("STOPPED", True, 99, (99, 99, 0)),
        ("DONE", False, 100, (100, 100, 0)),
        ("STOPPED", False, 7, (7, 7, 0)),
        ("FAILED", True, 0, (0, 0, 0)),
    ]
    before = migrate("0004_dataset_indexed_percent")
    dataset = before.get_model("replay", "Dataset").objects.create(name="a", path="/a", state="ready", records=100)
    empty = before.get_model("replay", "Dataset").objects.create(name="b", path="/b", state="failed", records=0)
    old = before.get_model("replay", "Replay").objects
    rows = [old.create(dataset=dataset, state=s, loop=loop, position=at, pace={}).pk for s, loop, at, _ in expected]
    of_empty = old.create(dataset=empty, state="FAILED", loop=True, position=0, pace={}).pk
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # this test is one transaction, and tables are altered next
    new = migrate("0005_replay_control").get_model("replay", "Replay").objects

    def found(pk: int) -> tuple[int, int, int]:
        row = new.get(pk=pk)
        assert row.desired_state == "REPLAYING" and row.request_id is None
        return row.position, row.published, row.loops

    assert [found(pk) for pk in rows] == [after for *_, after in expected]
    assert found(of_empty) == (0, 0, 0)


def migrate(name: str) -> Any:
    """Bring the tables of replay to a migration, and return the models as they are there."""
    executor = MigrationExecutor(connection)
    return executor.migrate([("replay", name)]).apps


def test_no_model_has_changed_without_a_migration() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
