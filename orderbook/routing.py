"""WebSocket addresses. Floor 4."""

from typing import Any

from django.urls import re_path

from orderbook.consumers import live_socket

_live_socket: Any = live_socket  # the stubs of Django know views only
websocket_urlpatterns = [re_path(r"^ws/?$", _live_socket)]
