"""Who is let in: whose answer is right, whose key is taken back, and what happens when nobody can say."""

from collections.abc import Sequence

import pytest

from replay.feed.cram import parse_response, respond
from replay.feed.live_messages import AuthRequest
from replay.streamer.attempts import MAX_FAILURES
from replay.streamer.doorman import AUTHENTICATION_FAILED, TOO_MANY_FAILURES, Doorman, Keys, TurnedAway

KEY = "db-0123456789abcdefghijklmnopqrs"
SAME_BUCKET = "db-9999999999abcdefghijklmnopqrs"
CHALLENGE = "zS9TxijuCsebyaTxxcrmeJs_MkARdB2L"


def answer(key: str, challenge: str = CHALLENGE) -> AuthRequest:
    return AuthRequest(parse_response(respond(challenge, key)), "GLBX.MDP3")


async def test_the_key_of_a_bucket_that_made_the_answer_is_found_and_its_use_noted() -> None:
    noted: list[str] = []
    asked: list[str] = []

    def find(bucket_id: str) -> Sequence[str]:
        asked.append(bucket_id)
        return [SAME_BUCKET, KEY]

    doorman = Doorman(Keys(find, note_login=noted.append))
    assert await doorman.let_in(answer(KEY), CHALLENGE, "a") == KEY
    assert await doorman.still_good(KEY)  # asked on the same thread, behind the note
    assert (asked, noted) == (["opqrs"], [KEY])


async def test_an_answer_to_another_challenge_is_a_failed_attempt() -> None:
    doorman = Doorman(Keys(lambda bucket_id: [KEY]))
    for _ in range(MAX_FAILURES):
        with pytest.raises(TurnedAway, match=AUTHENTICATION_FAILED):
            await doorman.let_in(answer(KEY, "another"), CHALLENGE, "a")
    with pytest.raises(TurnedAway, match=TOO_MANY_FAILURES):
        await doorman.let_in(answer(KEY), CHALLENGE, "a")
    assert await doorman.let_in(answer(KEY), CHALLENGE, "b") == KEY


async def test_a_key_is_good_until_somebody_says_that_it_is_not(caplog: pytest.LogCaptureFixture) -> None:
    def away(secret: str) -> bool:
        raise ConnectionError("PostgreSQL is away")

    assert not await Doorman(Keys(is_usable=lambda secret: False)).still_good(KEY)
    assert await Doorman(Keys(is_usable=lambda secret: False, own=KEY)).still_good(KEY)
    assert await Doorman(Keys(is_usable=away)).still_good(KEY)
    assert "PostgreSQL is away" in caplog.text and KEY not in caplog.text


async def test_a_use_that_cannot_be_noted_shuts_nobody_out() -> None:
    def away(secret: str) -> None:
        raise ConnectionError("PostgreSQL is away")

    doorman = Doorman(Keys(lambda bucket_id: [KEY], note_login=away))
    assert await doorman.let_in(answer(KEY), CHALLENGE, "a") == KEY
