"""The web process: daphne on WEB_HOST:WEB_PORT, serving pages, REST, admin and WebSockets. Floor 5."""

from typing import Any

from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.module_loading import import_string

from orderbook.socket_protocol import MAX_MESSAGE_BYTES


class Command(BaseCommand):
    help = "Serve the site on WEB_HOST:WEB_PORT until SIGTERM or Ctrl-C."

    def handle(self, *args: Any, **options: Any) -> None:
        behind_proxy = settings.BEHIND_PROXY
        server = Server(
            application=import_string(settings.ASGI_APPLICATION),
            endpoints=build_endpoint_description_strings(host=settings.WEB_HOST, port=settings.WEB_PORT),
            ping_interval=20,
            ping_timeout=30,
            # more than our own limit: what daphne refuses is cut off without a word, the consumer says why
            websocket_max_message_size=4 * MAX_MESSAGE_BYTES,
            websocket_max_frame_size=4 * MAX_MESSAGE_BYTES,
            application_close_timeout=3,
            proxy_forwarded_address_header="X-Forwarded-For" if behind_proxy else None,
            proxy_forwarded_port_header="X-Forwarded-Port" if behind_proxy else None,
            server_name="batonic",
        )
        server.run()
        if not server.listening_addresses:
            raise CommandError(f"Cannot listen on WEB_HOST={settings.WEB_HOST} WEB_PORT={settings.WEB_PORT}.")
