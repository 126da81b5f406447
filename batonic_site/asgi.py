"""The web process: HTTP and WebSocket routing. The Django application is made first: it loads the apps. Floor 5."""

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "batonic_site.settings")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import re_path

from orderbook.outlet import outlet_of
from orderbook.routing import websocket_urlpatterns


async def refuse(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer a WebSocket to an unknown address with 403."""
    await send({"type": "websocket.close"})


_elsewhere: Any = refuse  # the stubs of Django know views only
sockets = URLRouter([*websocket_urlpatterns, re_path(r"", _elsewhere)])
sockets_of_browsers = AllowedHostsOriginValidator(AuthMiddlewareStack(sockets))


async def websocket_application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Let browsers in by session and from our own pages only, and programs by API key only.

    A browser always says which page opens the socket (Origin); a program need not, and its cookies count for nothing.
    The way out is taken here, before the session's middleware puts its own around the server's `send`.
    """
    outlet = outlet_of(send)
    outlet.pause()  # of whom nobody knows yet nothing more is read; whoever accepts resumes
    scope = {**scope, "outlet": outlet}
    if any(name == b"origin" for name, _ in scope["headers"]):
        await sockets_of_browsers(scope, receive, send)
    else:
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
        await sockets(scope, receive, send)


application = ProtocolTypeRouter({"http": django_application, "websocket": websocket_application})
