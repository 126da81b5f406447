"""manage.py runstreamer: the daemon that publishes replays on STREAMER_TCP_PORT."""

import asyncio
import logging
import time
from argparse import ArgumentParser
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection

from orderbook.book import kernel_market
from replay import keys
from replay.datasets import open_dataset
from replay.feed import csv_codec, derived
from replay.feed.index import open_index
from replay.lease import Lease, LeaseHeld, acquire, owner_name
from replay.reporter import RowReporter, Run
from replay.runs import FEED
from replay.streamer import daemon
from replay.streamer.commands import CommandServer
from replay.streamer.doorman import Keys
from replay.streamer.gateway import GatewayConfig
from replay.streamer.messages import StartCommand, StreamerRefused, StreamerStatus
from replay.streamer.server import Streamer, StreamerError

logger = logging.getLogger(__name__)

REPORT_WITHIN_S = 1.5
VERBS: Final = {"REPLAYING": "resume", "PAUSED": "pause", "STOPPED": "stop"}
"""What brings a replay to each state."""


class Command(BaseCommand):
    help = "Publish replays to any number of TCP clients; stays when a replay ends."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.STREAMER_TCP_HOST, help="address to listen on")
        parser.add_argument("--port", type=int, default=settings.STREAMER_TCP_PORT, help="port; 0 takes a free one")
        parser.add_argument("--framing", choices=("csv", "dbn"), default=settings.FEED_FRAMING)
        parser.add_argument("--gateway-host", default=settings.GATEWAY_HOST, help="address of the live port")
        parser.add_argument("--gateway-port", type=int, default=settings.GATEWAY_PORT, help="port of the live protocol")

    def handle(self, *args: Any, **options: Any) -> None:
        _warm_up()
        try:
            lease = acquire(FEED, owner_name())
        except LeaseHeld as error:
            raise CommandError(str(error)) from error
        except OperationalError as error:
            raise CommandError(f"PostgreSQL must answer before a streamer can start: {error}") from error
        connection.close()  # the reporter has one of its own
        try:
            asyncio.run(self._serve(lease, options))
        except StreamerError as error:
            lease.release()
            raise CommandError(
                f"{error} STREAMER_TCP_PORT or --port chooses another port; GATEWAY_PORT or --gateway-port does for the"
                " live protocol."
            ) from error
        except LeaseLost as error:
            raise CommandError("Another streamer has taken the feed over: this one was silent for too long.") from error

    async def _serve(self, lease: Lease, options: dict[str, Any]) -> None:
        reporter = RowReporter(lease)
        streamer = Streamer(
            open_dataset,
            options["framing"],
            options["host"],
            options["port"],
            reporter.offer,
            lambda recording: open_index(recording, settings.RECORDINGS_FOLDER),
            GatewayConfig(options["gateway_host"], options["gateway_port"], _keys()),
        )
        commands = CommandServer(settings.REDIS_URL, streamer.handle, streamer.status, FEED, lease.generation)
        owner = ThreadsafeStreamer(streamer, asyncio.get_running_loop())
        try:
            await owner.serve(daemon.run(streamer, commands, reporter.offer, lambda: reporter.start(owner)))
        finally:
            await asyncio.to_thread(reporter.close, REPORT_WITHIN_S)


def _keys() -> Keys:
    return Keys(keys.secrets_of, keys.is_usable, keys.note_login, own=keys.feed_key())


def _warm_up() -> None:
    """Compile before anybody connects: the compiler would hold the event loop, and the market clock with it."""
    began = time.perf_counter()
    kernel_market.warm_up()
    csv_codec.warm_up()
    derived.warm_up()
    logger.info("the compiled kernels are ready after %.1f s", time.perf_counter() - began)


class LeaseLost(Exception):
    """Another streamer has the feed."""


class ThreadsafeStreamer:
    """The streamer, as the reporter's thread may call it."""

    def __init__(self, streamer: Streamer, loop: asyncio.AbstractEventLoop) -> None:
        self._streamer, self._loop = streamer, loop
        self._lost = asyncio.Event()

    async def serve(self, daemon: Coroutine[Any, Any, None]) -> None:
        """Run the daemon to its end, or until the lease is lost. Raises LeaseLost, and what the daemon raises."""
        serving, losing = asyncio.create_task(daemon), asyncio.create_task(self._lost.wait())
        await asyncio.wait([serving, losing], return_when=asyncio.FIRST_COMPLETED)
        losing.cancel()
        if not serving.done():
            self._streamer.abandon()
            serving.cancel()
            await asyncio.wait([serving])
            raise LeaseLost
        serving.result()

    def resume(self, command: StartCommand) -> "Future[StreamerStatus]":
        return asyncio.run_coroutine_threadsafe(self._streamer.start(command), self._loop)

    def bring(self, run: Run, state: str) -> None:
        asyncio.run_coroutine_threadsafe(self._bring(run, state), self._loop)

    def give_up(self, run: Run) -> None:
        self._loop.call_soon_threadsafe(self._streamer.abandon_run, *run)

    def lose(self) -> None:
        self._loop.call_soon_threadsafe(self._lost.set)

    async def _bring(self, run: Run, state: str) -> None:
        status = self._streamer.status()
        if (status["replay_id"], status["generation"]) != run:
            return
        try:
            await self._streamer.handle(VERBS[state], {})
        except StreamerRefused as refusal:
            logger.error("replay %d cannot be brought to %s: %s", run[0], state, refusal)
