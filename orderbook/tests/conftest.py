"""Fixtures of the tests that need a web process, and the profile of long property runs."""

from hypothesis import settings

from orderbook.tests.pages import control
from orderbook.tests.web import operator, reader, shared_web, static_files, web

__all__ = ["control", "operator", "reader", "shared_web", "static_files", "web"]

settings.register_profile("long", settings.get_profile("default"), max_examples=2000, deadline=None)
