"""Combinations of settings that work and are probably not meant: system checks with an id and a hint. Floor 5.

A value that cannot work stops the process in env.py already.
"""

from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register

Found = list[CheckMessage]

OUR_HOSTS: Final = ("127.0.0.1", "localhost", "::1", "streamer")
"""Where our own streamer is; the last is its name among the containers."""


@register(Tags.security)
def public_read(**_: Any) -> Found:
    """Say that strangers can read."""
    if not settings.PUBLIC_READ:
        return []
    return [
        Warning(
            "PUBLIC_READ=1: anyone who reaches this site can read books and history, without a login.",
            hint="Unset PUBLIC_READ, unless this is what you want.",
            id="batonic.W001",
        )
    ]


@register(Tags.security, deploy=True)
def database_password(**_: Any) -> Found:
    """Say that the database lets anybody in."""
    database: dict[str, Any] = settings.DATABASES["default"]
    if database["PASSWORD"] or "passfile" in database["OPTIONS"]:
        return []
    return [
        Warning(
            "The connection to PostgreSQL has no password.",
            hint="Set POSTGRES_PASSWORD, or put the password into PG_CONNINFO.",
            id="batonic.W002",
        )
    ]


@register(Tags.security)
def https_without_proxy(**_: Any) -> Found:
    """Say that every request would be redirected for ever: the web process itself speaks plain HTTP."""
    if not settings.HTTPS or settings.BEHIND_PROXY:
        return []
    return [
        Warning(
            "HTTPS=1 without BEHIND_PROXY=1: every request is redirected to https, the answer to that one included.",
            hint="Put a proxy that ends TLS in front, and set BEHIND_PROXY=1.",
            id="batonic.W003",
        )
    ]


@register()
def two_feeds(**_: Any) -> Found:
    """Say that the engine looks for our streamer on another port than where it listens."""
    name = "GATEWAY_PORT" if settings.FEED_PROTOCOL == "live" else "STREAMER_TCP_PORT"
    port = getattr(settings, name)
    if settings.FEED_HOST not in OUR_HOSTS or port == settings.FEED_PORT:
        return []
    return [
        Warning(
            f"The engine connects to port {settings.FEED_PORT}; for FEED_PROTOCOL={settings.FEED_PROTOCOL} "
            f"our streamer listens on {port}.",
            hint=f"Set FEED_PORT to {name}, or leave it away, unless another feed runs on this machine.",
            id="batonic.W004",
        )
    ]


@register()
def foreign_gateway_without_a_key(**_: Any) -> Found:
    """Say that a gateway of others cannot know the key that our engine has by itself; one with our SECRET_KEY does."""
    if settings.FEED_PROTOCOL != "live" or settings.FEED_HOST in OUR_HOSTS or settings.FEED_KEY:
        return []
    return [
        Warning(
            f"FEED_HOST={settings.FEED_HOST!r} and no FEED_KEY: that gateway lets the engine in only if it is a "
            "Batonic with the same SECRET_KEY.",
            hint="Set FEED_KEY, or FEED_KEY_FILE, to a key of that gateway; FEED_PROTOCOL=raw needs none.",
            id="batonic.W005",
        )
    ]
