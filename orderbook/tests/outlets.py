"""A client without a socket: what it was sent, and whether it takes anything."""

import json
from typing import Any

from orderbook.outlet import Frame


class Paper:
    """An outlet that keeps what it is given. ``unsent`` is set by the test."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.unsent = 0

    def send(self, frame: Frame) -> None:
        self.messages.append(json.loads(frame.text))

    def close(self, code: int, reason: str) -> None:
        self.closed = code, reason

    @property
    def books(self) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == "book"]

    @property
    def seqs(self) -> list[int]:
        return [book["seq"] for book in self.books]
