"""A daphne with one small application, for the test of the outlet: `python -m orderbook.tests.outlet_server PORT`.

It greets with the kind of its outlet, and does what the client asks for: send many frames, tell what is unsent, tell
when nothing is left of other clients, close. Garbage is not collected here: what goes has to go by itself.
"""

import asyncio
import gc
import json
import sys
from typing import Any

from daphne.http_protocol import WebRequest
from daphne.server import Server
from daphne.ws_protocol import WebSocketProtocol

from orderbook.outlet import Frame, outlet_of
from orderbook.socket_protocol import Close


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    outlet = outlet_of(send)
    outlet.send(Frame("before accept"))
    await send({"type": "websocket.accept"})
    outlet.send(Frame(type(outlet).__name__))
    while (message := await receive())["type"] == "websocket.receive":
        wish = json.loads(message["text"])
        for number in range(wish.get("frames", 0)):
            outlet.send(Frame(str(number).ljust(wish["bytes"], ".")))
        if "unsent" in wish:
            while (outlet.unsent > 0) != wish["unsent"]:
                await asyncio.sleep(0.01)
            outlet.send(Frame("so it is"))
        if "alone" in wish:
            while connections() > 1:
                await asyncio.sleep(0.1)
            outlet.send(Frame("so it is"))
        if "close" in wish:
            code, reason = wish["close"]
            outlet.close(Close(code) if code in list(Close) else code, reason)
            outlet.send(Frame("behind the close"))


def connections() -> int:
    """Return how many connections are in memory. A WebSocket is one, and so is the request that it was once."""
    return sum(type(kept) in (WebSocketProtocol, WebRequest) for kept in gc.get_objects())


if __name__ == "__main__":
    gc.disable()
    Server(application, endpoints=[f"tcp:port={sys.argv[1]}:interface=127.0.0.1"]).run()
