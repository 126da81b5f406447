"""A daphne with one small application, for the test of the outlet: `python -m orderbook.tests.outlet_server PORT`.

It greets with the kind of its outlet, and does what the client asks for: send many frames, tell what is unsent, close.
"""

import asyncio
import json
import sys
from typing import Any

from daphne.server import Server

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
        if "close" in wish:
            code, reason = wish["close"]
            outlet.close(Close(code) if code in list(Close) else code, reason)
            outlet.send(Frame("behind the close"))


if __name__ == "__main__":
    Server(application, endpoints=[f"tcp:port={sys.argv[1]}:interface=127.0.0.1"]).run()
