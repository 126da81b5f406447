"""The right to publish a feed: one holder, in database time."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now

from replay import lease
from replay.lease import Lease, LeaseHeld, acquire, take
from replay.models import FeedLease

FEED = "main"
A, B = "alpha:11:a", "beta:22:b"


def expire() -> None:
    FeedLease.objects.update(expires_at=Now() - timedelta(seconds=1))


@pytest.mark.django_db
def test_one_takes_it_and_another_only_when_it_has_run_out() -> None:
    held = take(FEED, A)
    assert held == Lease(FEED, A, 1)
    assert take(FEED, B) is None
    expire()
    assert take(FEED, B) == Lease(FEED, B, 2)
    assert take("another feed", A) == Lease("another feed", A, 1)


@pytest.mark.django_db
def test_a_holder_that_renews_keeps_it_also_when_it_was_late_and_nobody_came() -> None:
    held = take(FEED, A)
    assert held is not None
    expire()
    assert held.renew()
    assert take(FEED, B) is None
    (row,) = FeedLease.objects.annotate(left=F("expires_at") - Now())
    assert timedelta(seconds=2) < row.left <= lease.TTL


@pytest.mark.django_db
def test_who_lost_it_can_neither_renew_nor_release_what_another_has() -> None:
    lost = take(FEED, A)
    assert lost is not None
    expire()
    new = take(FEED, B)
    assert new is not None
    assert not lost.renew()
    lost.release()
    assert new.renew()
    assert take(FEED, A) is None


@pytest.mark.django_db
def test_what_is_released_is_taken_at_once() -> None:
    held = take(FEED, A)
    assert held is not None
    held.release()
    assert acquire(FEED, B).generation == 2


@pytest.mark.django_db(transaction=True)
def test_while_the_holder_renews_another_is_refused_and_told_who_holds_it_since_when(
    wait_for: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_MARGIN_S", 60.0)  # refused because the holder lives, and not because time is over
    held = take(FEED, A)
    assert held is not None
    refusals: list[str] = []

    def ask() -> None:
        try:
            acquire(FEED, B)
        except LeaseHeld as refusal:
            refusals.append(str(refusal))
        finally:
            connection.close()

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(lambda: held.renew() and refusals)
    asking.join()
    taken_at = FeedLease.objects.get().taken_at
    assert refusals == [
        f"Another streamer publishes the feed main: process 11 on alpha, since {taken_at:%Y-%m-%d %H:%M:%S} UTC."
    ]


@pytest.mark.django_db(transaction=True)
def test_of_many_that_want_it_at_the_same_instant_one_gets_it() -> None:
    barrier, taken = threading.Barrier(8), []

    def want(name: str) -> None:
        barrier.wait()
        taken.append(take(FEED, name))
        connection.close()

    threads = [threading.Thread(target=want, args=(f"host:{number}:x",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 8
    assert sum(one is not None for one in taken) == 1


def test_the_name_of_an_owner_is_its_own() -> None:
    assert lease.owner_name() != lease.owner_name()
    assert len(lease.owner_name()) <= 200
