"""manage.py runstreamer: the daemon that publishes replays on STREAMER_TCP_PORT."""

import asyncio
import logging
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from orderbook.book import kernel_market
from replay.datasets import open_dataset
from replay.feed import csv_codec
from replay.feed.index import open_index
from replay.reporter import RowReporter, Run
from replay.runs import FEED
from replay.streamer import daemon
from replay.streamer.commands import CommandServer
from replay.streamer.messages import StartCommand
from replay.streamer.server import Streamer, StreamerError

logger = logging.getLogger(__name__)

REPORT_WITHIN_S = 1.5
RESUME_WITHIN_S = 600.0  # a large compressed file is decoded first


class Command(BaseCommand):
    help = "Publish replays to any number of TCP clients; stays when a replay ends."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.STREAMER_TCP_HOST, help="address to listen on")
        parser.add_argument("--port", type=int, default=settings.STREAMER_TCP_PORT, help="port; 0 takes a free one")
        parser.add_argument("--framing", choices=("csv", "dbn"), default=settings.FEED_FRAMING)

    def handle(self, *args: Any, **options: Any) -> None:
        _warm_up()
        try:
            asyncio.run(self._serve(options["host"], options["port"], options["framing"]))
        except StreamerError as error:
            raise CommandError(f"{error} STREAMER_TCP_PORT or --port chooses another port.") from error

    async def _serve(self, host: str, port: int, framing: Any) -> None:
        reporter = RowReporter()
        streamer = Streamer(
            open_dataset,
            framing,
            host,
            port,
            reporter.offer,
            lambda recording: open_index(recording, settings.RECORDINGS_FOLDER),
        )
        commands = CommandServer(settings.REDIS_URL, streamer.handle, streamer.status, FEED)
        owner = ThreadsafeStreamer(streamer, asyncio.get_running_loop())
        try:
            await daemon.run(streamer, commands, reporter.offer, lambda: reporter.start(owner))
        finally:
            await asyncio.to_thread(reporter.close, REPORT_WITHIN_S)


def _warm_up() -> None:
    """Compile before anybody connects: the compiler would hold the event loop, and the market clock with it."""
    began = time.perf_counter()
    kernel_market.warm_up()
    csv_codec.warm_up()
    logger.info("the compiled kernels are ready after %.1f s", time.perf_counter() - began)


class ThreadsafeStreamer:
    """The streamer, as the reporter's thread may call it."""

    def __init__(self, streamer: Streamer, loop: asyncio.AbstractEventLoop) -> None:
        self._streamer, self._loop = streamer, loop

    def resume(self, command: StartCommand) -> None:
        asyncio.run_coroutine_threadsafe(self._streamer.start(command), self._loop).result(RESUME_WITHIN_S)

    def give_up(self, run: Run) -> None:
        self._loop.call_soon_threadsafe(self._streamer.stop_run, *run)
