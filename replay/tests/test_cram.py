"""Challenge-response: what the vendor's clients compute, and nothing that was not made with the key."""

import hashlib
import random

import pytest

from replay.feed.cram import (
    BUCKET_LENGTH,
    CHALLENGE_BYTES,
    Response,
    bucket_of,
    is_key,
    make_challenge,
    parse_response,
    respond,
    verify,
)
from replay.feed.stream import FeedError

KEY = "db-0123456789abcdefghijklmnopqrs"
CHALLENGE = "zS9TxijuCsebyaTxxcrmeJs_MkARdB2L"


def test_an_answer_is_the_hash_of_challenge_and_key_and_the_end_of_the_key() -> None:
    expected = hashlib.sha256(f"{CHALLENGE}|{KEY}".encode()).hexdigest() + "-opqrs"
    assert respond(CHALLENGE, KEY) == expected
    assert parse_response(expected) == Response(expected[:64], "opqrs")
    assert bucket_of(KEY) == "opqrs" and len(bucket_of(KEY)) == BUCKET_LENGTH


def test_only_the_key_and_the_challenge_of_an_answer_verify_it() -> None:
    answer = parse_response(respond(CHALLENGE, KEY))
    assert verify(CHALLENGE, KEY, answer)
    assert not verify(CHALLENGE, KEY[:-1] + "S", answer)
    assert not verify(CHALLENGE + "x", KEY, answer)
    assert not verify(CHALLENGE, KEY, answer._replace(digest="0" * 64))


def test_a_challenge_is_32_characters_that_need_no_escape_and_differ() -> None:
    rng = random.Random(1)
    challenges = {make_challenge(rng.randbytes(CHALLENGE_BYTES)) for _ in range(100)}
    assert len(challenges) == 100
    assert all(
        len(challenge) == 32 and challenge.replace("-", "").replace("_", "").isalnum() for challenge in challenges
    )


def test_too_little_randomness_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 24 random bytes, found 23"):
        make_challenge(bytes(23))


@pytest.mark.parametrize(
    "text", ["", "-opqrs", "0" * 64, "0" * 64 + "-", "0" * 63 + "-opqrs", "G" * 64 + "-opqrs", "0" * 64 + "-opqrst"]
)
def test_what_has_not_the_form_of_an_answer_is_refused(text: str) -> None:
    with pytest.raises(FeedError, match="authentication, auth: expected 64 hexadecimal digits"):
        parse_response(text)


def test_a_client_with_a_short_key_names_all_of_it() -> None:
    assert parse_response(respond(CHALLENGE, "x")).bucket_id == "x"


@pytest.mark.parametrize(
    ("text", "form"),
    [(KEY, True), (KEY[:-1], False), (KEY + "x", False), ("dx" + KEY[2:], False), (KEY[:-1] + "|", False), ("", False)],
)
def test_a_key_has_32_characters_and_starts_with_db(text: str, form: bool) -> None:
    assert is_key(text) is form
