"""Who is sent to next, when one of them is broken."""

import asyncio
import logging
from contextlib import suppress

import pytest

from orderbook.rounds import BROKEN, Rounds
from orderbook.socket_protocol import Wish
from orderbook.tests.books import message, snapshot
from orderbook.tests.outlets import Paper
from orderbook.tests.test_hub import until
from orderbook.topic import Topic
from orderbook.viewer import Subscription, Viewer


class Torn(Paper):
    """An outlet that nothing can be sent to."""

    def send(self, frame: object) -> None:
        raise ValueError("torn")


class Stuck(Torn):
    """And that cannot be closed either."""

    def close(self, code: int, reason: str) -> None:
        super().close(code, reason)
        raise ValueError("stuck")


@pytest.mark.parametrize("paper", [Torn(), Stuck()])
async def test_a_client_that_fails_is_closed_and_the_others_go_on(
    paper: Paper, caplog: pytest.LogCaptureFixture
) -> None:
    topic, rounds, healthy = Topic("CLX5"), Rounds(), Paper()
    topic.take(message(snapshot(1)))
    for outlet in (paper, healthy):
        rounds.add(Subscription(Viewer(outlet, 10.0), topic, Wish("CLX5", 5, 10)))
    task = asyncio.create_task(rounds.run())
    with caplog.at_level(logging.ERROR):
        await until(lambda: healthy.seqs == [1])
        topic.take(message(snapshot(2)))
        rounds.wake("CLX5")
        await until(lambda: healthy.seqs == [1, 2])
    assert paper.closed == (BROKEN, "the server made a mistake")
    assert "a live view of CLX5 ended with an error" in caplog.text
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
