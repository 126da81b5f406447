"""A peer that vanishes without a word: both ends in a network of their own, whose only wire is taken away.

Run in a process of its own, because the network is a process's. Imports no Django: none is set up there.
"""

import fcntl
import socket
import struct
import subprocess
import sys
import time
from threading import Event, Thread

from engine_worker import feed_client
from engine_worker.connection import FeedInterrupted
from engine_worker.raw_feed import raw_feed
from replay.feed.dbn_metadata import encode_metadata

_SET_FLAGS, _UP = 0x8914, 1


def in_a_network_of_its_own() -> list[str]:
    """Return what ``lose_the_peer`` says. Raises PermissionError where the system lets nobody have such a network."""
    program = f"import {__name__} as m; print(*m.lose_the_peer(), sep='\\n')"
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode and "Traceback" not in done.stderr:
        raise PermissionError(done.stderr)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def lose_the_peer() -> tuple[str, int]:
    """Return why a connection whose peer has vanished broke, and after how many whole seconds of silence.

    The kernel asks as often as it may, and not as seldom as the engine lets it.
    """
    feed_client.KEEPALIVE |= {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2}
    _wire(_UP)
    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=_greet, args=(server,), daemon=True).start()
        feed = feed_client.FeedClient("127.0.0.1", server.getsockname()[1], raw_feed("dbn"))
        connection = feed.connect(Event())
        assert connection is not None
        while connection.receive(5) is None:
            pass
        _wire(0)
        begun = time.monotonic()
        try:
            while time.monotonic() < begun + 10:
                connection.receive(0.1)
        except FeedInterrupted as error:
            return str(error), int(time.monotonic() - begun)
        finally:
            connection.close()
    return "", 10


def _greet(server: socket.socket) -> None:
    peer, _ = server.accept()
    peer.sendall(encode_metadata("GLBX.MDP3", 10**18, {7: "CLX5"}))
    time.sleep(60)


def _wire(flags: int) -> None:
    """Put the loopback interface up, or take it down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14x", b"lo", flags))
