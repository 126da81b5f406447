"""Requests with a key: carried out once, whatever dies in between."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from replay import idempotency
from replay.idempotency import OtherRequest, UnderWay, digest_of, once
from replay.models import IdempotentRequest

ASKED = digest_of("step", {"unit": "event", "by": 1})


class Verb:
    """Something that is done, and counted under the name it is done with."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.names: list[str] = []
        self.error = error

    def __call__(self, name: str) -> idempotency.Answer:
        self.names.append(name)
        if self.error is not None:
            raise self.error
        return 200, {"done": len(self.names)}


@pytest.mark.django_db
def test_the_same_request_is_answered_again_and_not_done_again() -> None:
    verb = Verb()
    assert once("user:1", "k", ASKED, verb) == (200, {"done": 1})
    assert once("user:1", "k", ASKED, verb) == (200, {"done": 1})
    assert len(verb.names) == 1
    assert once("user:2", "k", ASKED, verb) == (200, {"done": 2}), "the key of another caller is another key"
    assert len(set(verb.names)) == 2


@pytest.mark.django_db
def test_a_key_that_was_sent_with_something_else_is_refused() -> None:
    verb = Verb()
    once("user:1", "k", ASKED, verb)
    with pytest.raises(OtherRequest):
        once("user:1", "k", digest_of("step", {"unit": "event", "by": 2}), verb)
    assert len(verb.names) == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("step", {"unit": "event", "by": 1}), ("step", {"by": 1, "unit": "event"}), True),
        (("pause", None), ("resume", None), False),
        (("seek", {"record": 1}), ("seek", {"record": 2}), False),
        (("start", {}), ("start", None), False),
    ],
)
def test_requests_are_told_apart_by_verb_and_body(one: Any, other: Any, same: bool) -> None:
    assert (digest_of(*one) == digest_of(*other)) is same


@pytest.mark.django_db
def test_what_could_not_be_told_is_done_again_under_the_same_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "_WAIT_S", 0.0)
    failing, verb = Verb(RuntimeError("the worker was killed")), Verb()
    with pytest.raises(RuntimeError):
        once("user:1", "k", ASKED, failing)
    assert once("user:1", "k", ASKED, verb) == (200, {"done": 1})
    assert failing.names == verb.names, "by which the streamer knows what it has done before"


@pytest.mark.django_db
def test_what_a_process_took_with_it_when_it_died_is_done_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "_WAIT_S", 0.1)
    verb = Verb()
    row = IdempotentRequest.objects.create(caller="user:1", key="k", digest=ASKED, claimed_at=timezone.now())
    with pytest.raises(UnderWay):
        once("user:1", "k", ASKED, verb)
    long_ago = timezone.now() - idempotency.ABANDONED_AFTER - timedelta(minutes=1)
    IdempotentRequest.objects.filter(pk=row.pk).update(claimed_at=long_ago)
    assert once("user:1", "k", ASKED, verb) == (200, {"done": 1})


@pytest.mark.django_db(transaction=True)
def test_of_many_at_the_same_instant_one_does_it_and_all_get_its_answer(wait_for: Callable[..., Any]) -> None:
    barrier, verb, answers = threading.Barrier(8), Verb(), []
    release = threading.Event()

    def slow(name: str) -> idempotency.Answer:
        release.wait(10)
        return verb(name)

    def ask() -> None:
        barrier.wait()
        answers.append(once("user:1", "k", ASKED, slow))
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_for(IdempotentRequest.objects.count)
    release.set()
    for thread in threads:
        thread.join()
    assert answers == [(200, {"done": 1})] * 8
    assert len(verb.names) == 1


@pytest.mark.django_db
def test_answers_are_kept_for_a_day() -> None:
    once("user:1", "new", ASKED, Verb())
    once("user:1", "old", ASKED, Verb())
    a_day_ago = timezone.now() - idempotency.KEPT_FOR - timedelta(seconds=1)
    IdempotentRequest.objects.filter(key="old").update(created_at=a_day_ago)
    assert idempotency.forget_old() == 1
    assert IdempotentRequest.objects.get().key == "new"


@pytest.mark.parametrize(
    ("text", "is_one"), [("a", True), ("x" * 200, True), ("", False), ("x" * 201, False), ("a\x7f", False)]
)
def test_a_key_is_1_to_200_printable_characters(text: str, is_one: bool) -> None:
    assert idempotency.is_key(text) is is_one
