"""Fixtures of the tests that need a web process."""

from orderbook.tests.web import operator, reader, shared_web, static_files, web

__all__ = ["operator", "reader", "shared_web", "static_files", "web"]
