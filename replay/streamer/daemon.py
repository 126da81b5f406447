"""Runs a streamer with its command server until it is told to stop. Floor 1; no Django."""

import asyncio
import logging
import signal
from collections.abc import Callable

from replay.streamer.commands import STATUS_EVERY_S, CommandServer
from replay.streamer.server import Report, Streamer

logger = logging.getLogger(__name__)


async def run(streamer: Streamer, commands: CommandServer, report: Report, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; then stop the replay, flush the clients and return.

    ``ready`` is called once the ports are open. Raises StreamerError when one cannot be opened.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await streamer.listen()
    logger.info("the streamer listens on %s:%d, live port %d", streamer.host, streamer.port, streamer.gateway_port)
    ready()
    duties = [asyncio.create_task(commands.run()), asyncio.create_task(_keep_reporting(streamer, report))]
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([*duties, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await streamer.close()
        for task in (*duties, stopping):
            task.cancel()
        outcomes = await asyncio.gather(*duties, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):  # a fault of the program: end, and be started anew
            raise outcome


async def _keep_reporting(streamer: Streamer, report: Report) -> None:
    while True:
        report(streamer.status())
        await asyncio.sleep(STATUS_EVERY_S)
