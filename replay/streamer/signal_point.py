"""A place where tasks of one event loop wait for something to change. Floor 1."""

import asyncio


class SignalPoint:
    """Wakes everybody who waits now; who comes later waits for the next time.

    Callers check their condition first and wait without an await between, so that nothing is missed.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        await self._event.wait()
