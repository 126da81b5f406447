"""One web process: daphne on WEB_HOST:WEB_PORT, serving pages, REST, admin and WebSockets. Floor 5.

`manage.py up` runs several of them on one socket, which it hands down with ``--socket``.
"""

import gc
import logging
from argparse import ArgumentParser
from typing import Any

from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.module_loading import import_string

from batonic_site.services.process import ServiceError
from batonic_site.services.web import ACCEPTING, allow_many_sockets, listening_socket
from orderbook.socket_protocol import MAX_MESSAGE_BYTES

log = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Serve the site on WEB_HOST:WEB_PORT until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--socket", type=int, metavar="FD", help="accept from this inherited listening socket")

    def handle(self, *args: Any, **options: Any) -> None:
        allow_many_sockets()
        behind_proxy = settings.BEHIND_PROXY
        server = Server(
            application=import_string(settings.ASGI_APPLICATION),
            endpoints=build_endpoint_description_strings(file_descriptor=_descriptor(options["socket"])),
            ping_interval=10,
            ping_timeout=10,
            websocket_timeout=-1,  # left alone it ends every connection after a day
            # more than our own limit: what daphne refuses is cut off without a word, the consumer says why
            websocket_max_message_size=4 * MAX_MESSAGE_BYTES,
            websocket_max_frame_size=4 * MAX_MESSAGE_BYTES,
            application_close_timeout=3,
            proxy_forwarded_address_header="X-Forwarded-For" if behind_proxy else None,
            proxy_forwarded_port_header="X-Forwarded-Port" if behind_proxy else None,
            server_name="batonic",
            ready_callable=lambda: log.info("%s on port %d", ACCEPTING, settings.WEB_PORT),
        )
        gc.collect()
        gc.freeze()  # what is there now stays: no later collection holds all clients up to look at it
        server.run()
        if not server.listening_addresses:
            raise CommandError(f"Cannot accept from the socket {options['socket']}: expected one that listens.")


def _descriptor(inherited: int | None) -> int:
    """Return the listening socket: the inherited one, or one of our own. Daphne takes a copy and closes this."""
    if inherited is not None:
        return inherited
    try:
        return listening_socket(settings.WEB_HOST, settings.WEB_PORT).detach()
    except ServiceError as error:
        raise CommandError(str(error)) from error
