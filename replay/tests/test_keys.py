"""API keys: made once, found again, refused when they should be."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from replay import keys
from replay.feed.cram import is_key, parse_response, respond
from replay.feed.live_messages import AuthRequest
from replay.keys import (
    KEY_LENGTH,
    KeyFormError,
    create_key,
    feed_key,
    find_key,
    is_usable,
    note_login,
    secret_of,
    secrets_of,
)
from replay.models import ApiKey
from replay.streamer.attempts import MAX_FAILURES
from replay.streamer.doorman import KEYS_UNREACHABLE, Doorman, Keys, TurnedAway


@pytest.fixture
def alice(db: None) -> User:
    return User.objects.create_user("alice", password="a long enough password")


def test_a_key_is_32_characters_and_found_again(alice: User) -> None:
    row, text = create_key(alice, "bot", ["feed", "read"])
    assert len(text) == KEY_LENGTH
    assert text.startswith("db-")
    assert row.bucket_id == text[-5:]
    assert row.scopes == ["read", "feed"]
    assert find_key(text) == row


def test_the_database_does_not_hold_the_key_itself(alice: User) -> None:
    row, text = create_key(alice, "bot", ["read"])
    row.refresh_from_db()
    assert text.encode() not in bytes(row.secret)
    assert secret_of(row) == text


def test_a_wrong_key_of_the_same_bucket_is_not_found(alice: User) -> None:
    _, text = create_key(alice, "bot", ["read"])
    wrong = "db-" + "x" * (KEY_LENGTH - 8) + text[-5:]
    assert find_key(wrong) is None


def test_two_keys_in_one_bucket_are_told_apart(alice: User) -> None:
    first, text = create_key(alice, "one", ["read"])
    second, other = create_key(alice, "two", ["read"])
    ApiKey.objects.filter(pk=second.pk).update(bucket_id=first.bucket_id)
    assert find_key(text) == first
    assert find_key(other) is None


@pytest.mark.parametrize(
    "text",
    ["", "db-", "x" * 32, "db-" + "é" * 29, "db-" + "x" * 300, "db-" + "x" * 28 + "\x00", "db-" + "x" * 29 + "\n"],
)
def test_what_is_no_key_is_not_looked_up(
    alice: User, text: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        assert find_key(text) is None


def test_expired_revoked_and_orphaned_keys_open_nothing(alice: User) -> None:
    now = timezone.now()
    _, expired = create_key(alice, "expired", ["read"], expires_at=now - timedelta(seconds=1))
    _, valid = create_key(alice, "valid", ["read"], expires_at=now + timedelta(hours=1))
    row, revoked = create_key(alice, "revoked", ["read"])
    ApiKey.objects.filter(pk=row.pk).update(revoked_at=now)
    assert [find_key(text) is not None for text in (expired, valid, revoked)] == [False, True, False]
    alice.is_active = False
    alice.save()
    assert find_key(valid) is None


def test_use_is_noted_at_most_once_a_minute(alice: User, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    row, text = create_key(alice, "bot", ["read"])
    with django_assert_num_queries(2):
        find_key(text)
    row.refresh_from_db()
    assert row.last_used_at is not None
    with django_assert_num_queries(1):
        find_key(text)
    ApiKey.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    with django_assert_num_queries(2):
        find_key(text)


def test_keys_outlive_a_rotation_of_the_site_secret_only_through_the_fallbacks(alice: User, settings: Settings) -> None:
    row, text = create_key(alice, "bot", ["read"])
    old = settings.SECRET_KEY
    settings.SECRET_KEY = "another secret of the site, long enough to be one"
    assert find_key(text) is None
    assert secret_of(row) == ""
    settings.SECRET_KEY_FALLBACKS = [old]
    assert find_key(text) == row


@pytest.mark.parametrize("name", ["", "  ", "x" * 81, "a\nb"])
def test_a_name_that_does_not_fit_is_refused(alice: User, name: str) -> None:
    with pytest.raises(KeyFormError, match="Expected a name of 1 to 80 printable characters"):
        create_key(alice, name, ["read"])
    with pytest.raises(CommandError, match="Expected a name"):
        call_command("createapikey", "alice", name)


@pytest.mark.parametrize("scopes", [[], ["write"], ["read", "admin"]])
def test_unknown_scopes_are_refused(alice: User, scopes: list[str]) -> None:
    with pytest.raises(KeyFormError, match="Expected scopes out of read, feed, control"):
        create_key(alice, "bot", scopes)
    assert not ApiKey.objects.exists()


def test_createapikey_prints_the_key_once(alice: User) -> None:
    out = StringIO()
    call_command("createapikey", "alice", "my bot", "--scope", "read", "--scope", "control", "--days", "7", stdout=out)
    key = find_key(out.getvalue().strip())
    assert key is not None
    assert (key.owner, key.name, key.scopes) == (alice, "my bot", ["read", "control"])
    assert key.expires_at is not None


def test_createapikey_names_what_is_wrong(alice: User) -> None:
    with pytest.raises(CommandError, match="No account 'bob'"):
        call_command("createapikey", "bob", "x")
    with pytest.raises(CommandError, match="--days: expected 1 to 36500, found 0"):
        call_command("createapikey", "alice", "x", "--days", "0")


def test_the_engines_own_key_is_a_key_and_follows_from_the_site_secret_alone(settings: Settings) -> None:
    settings.SECRET_KEY = "one"
    ours = feed_key()
    assert is_key(ours) and ours == feed_key()
    settings.SECRET_KEY = "other"
    assert feed_key() != ours


def test_challenge_response_gets_the_usable_keys_of_a_bucket_that_have_the_scope(alice: User) -> None:
    _, reading = create_key(alice, "reads", ["read"])
    row, feeding = create_key(alice, "feeds", ["feed"])
    other, beside = create_key(alice, "beside", ["feed", "read"])
    ApiKey.objects.filter(pk=other.pk).update(bucket_id=row.bucket_id)
    assert sorted(secrets_of(row.bucket_id)) == sorted([feeding, beside])
    assert secrets_of(reading[-5:]) == []
    assert secrets_of("zzzzz") == []
    ApiKey.objects.filter(pk=other.pk).update(revoked_at=timezone.now())
    assert secrets_of(row.bucket_id) == [feeding]
    alice.is_active = False
    alice.save()
    assert secrets_of(row.bucket_id) == []


def test_a_key_that_is_revoked_expired_or_orphaned_is_usable_no_longer(alice: User) -> None:
    row, text = create_key(alice, "feeds", ["feed"])
    assert is_usable(text)
    assert not is_usable(text, "control")
    assert not is_usable("db-" + "x" * 29)
    ApiKey.objects.filter(pk=row.pk).update(expires_at=timezone.now())
    assert not is_usable(text)


def test_a_login_is_noted(alice: User) -> None:
    row, text = create_key(alice, "feeds", ["feed"])
    note_login(text)
    row.refresh_from_db()
    assert row.last_used_at is not None


def test_our_own_engine_gets_in_without_the_database() -> None:  # which this test may not touch
    ours = feed_key()
    assert secrets_of(ours[-5:]) == [ours]
    assert is_usable(ours)
    note_login(ours)


def test_without_the_database_nobody_is_blamed_and_whoever_is_in_stays(
    alice: User, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = create_key(alice, "feeds", ["feed"])
    monkeypatch.setitem(connections.settings["default"], "HOST", "127.0.0.1")
    monkeypatch.setitem(connections.settings["default"], "PORT", "1")  # nobody listens there
    doorman = Doorman(Keys(secrets_of, is_usable, note_login, own=feed_key()))

    async def log_in(key: str) -> str:
        answer = AuthRequest(parse_response(respond("challenge", key)), "GLBX.MDP3")
        return await doorman.let_in(answer, "challenge", "10.0.0.1")

    async def knock() -> None:
        for _ in range(MAX_FAILURES + 1):
            with pytest.raises(TurnedAway, match=f"^{KEYS_UNREACHABLE}$"):
                await log_in(text)
        assert await doorman.still_good(text)
        assert await log_in(feed_key()) == feed_key()

    asyncio.run(knock())
    assert caplog.text.count("keys cannot be looked up: OperationalError: ") == MAX_FAILURES + 1
    with pytest.raises(OperationalError):
        ThreadPoolExecutor().submit(note_login, text).result()


def test_no_key_is_made_with_the_bucket_of_our_own(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["db-" + "x" * 24 + feed_key()[-5:], "db-" + "y" * 29]
    monkeypatch.setattr(keys, "_new_text", lambda: texts.pop(0))
    assert create_key(alice, "bot", ["feed"])[1] == "db-" + "y" * 29
