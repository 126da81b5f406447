"""Run the engine: follow the feed, rebuild the books, store and show them. SIGTERM and Ctrl-C drain and end it."""

import logging
import sys
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from engine_worker.config import engine_config
from engine_worker.heap import return_large_blocks
from engine_worker.status import status_line
from engine_worker.stop_signals import StopSignals
from engine_worker.threads import EngineThreads, prefer_feed

STATUS_EVERY_S: Final = 1.0
LOG_EVERY: Final = 10  # status lines go to the log at each tenth look

log = logging.getLogger(__name__)


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        stop = StopSignals()
        prefer_feed()
        return_large_blocks()
        config = engine_config()
        threads = EngineThreads(config)
        log.info("engine starts", extra={"engine": config.name, "symbols": config.symbols, "protocol": config.protocol})
        threads.start()
        dead = self._watch(threads, stop)
        threads.stop()
        if dead:
            raise CommandError(f"The engine stopped because of a fault in: {', '.join(dead)}. The log says where.")
        log.info("engine stopped", extra={"engine": config.name})

    def _watch(self, threads: EngineThreads, stop: StopSignals) -> list[str]:
        """Say how it goes until told to stop, or until a thread dies. Returns the dead ones."""
        terminal = sys.stdout.isatty()
        status = threads.status_reader()
        looks, told = 0, -1
        while not stop.wait(STATUS_EVERY_S):
            if dead := threads.dead_threads():
                return dead
            looks += 1
            if terminal:
                self.stdout.write(status_line(status()))
            elif looks % LOG_EVERY == 0 and threads.engine.counters.received != told:
                told = threads.engine.counters.received
                said = status()
                log.info("status", extra={"engine": said["name"], "run_id": said["run_id"], "status": said})
        return []
