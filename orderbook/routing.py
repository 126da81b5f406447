"""WebSocket addresses. Floor 4."""

from django.urls import re_path

from orderbook.consumers import BookConsumer

websocket_urlpatterns = [re_path(r"^ws/?$", BookConsumer.as_asgi())]
