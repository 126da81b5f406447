"""What the live page says of the engines, in a real browser."""

import json
import os
from typing import Any

import pytest
import redis
from playwright.sync_api import Page, expect

from orderbook.live import ENGINE_STATUS_KEY, ENGINES_KEY, blank_status
from orderbook.tests.books import keep, snapshot
from orderbook.tests.pages import FakeControl, sign_in

pytestmark = pytest.mark.django_db(transaction=True)


def tell(client: redis.Redis, name: str, **changes: object) -> None:
    """Say in Redis what an engine says of itself."""
    client.zadd(ENGINES_KEY, {name: 1})
    client.set(ENGINE_STATUS_KEY.format(name=name), json.dumps(blank_status(name) | changes))


def figures(page: Page) -> list[str]:
    return [text.replace("\u202f", "") for text in page.locator("#engines dd").all_inner_texts()]


def test_the_page_says_how_the_engines_are_and_what_waits(
    web: str, page: Page, page_errors: list[str], operator: Any, redis_client: redis.Redis, control: FakeControl
) -> None:
    badge, reasons = page.get_by_test_id("engine-state"), page.locator("#engines [data-part=reasons]")
    keep(redis_client, snapshot(1))
    sign_in(page, web, operator)
    expect(badge).to_have_text("no engine")
    expect(reasons).to_contain_text("is `manage.py runengine` running?")
    queue = {"queue_bytes": 48 << 20, "queue_capacity_bytes": 64 << 20}
    tell(redis_client, "east", snapshots_stored=12345, queue_items=1500, on_disk=1000, lag_records=17, **queue)
    expect(badge).to_have_text("engine ok")
    expect(reasons).to_be_hidden()
    assert figures(page) == ["12345", "1500, 75 % full", "1000", "17"]
    tell(redis_client, "west", snapshots_stored=5, degraded={"database": "PostgreSQL has not answered for 7 s"})
    expect(badge).to_have_text("2 engines degraded")
    expect(reasons).to_have_text("west: database degraded: PostgreSQL has not answered for 7 s")
    assert figures(page)[0] == "12350"
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("() => document.documentElement.scrollWidth") == width
        if shots := os.environ.get("SHOTS"):
            page.screenshot(path=f"{shots}/engines-{width}.png", full_page=True)
    assert page_errors == []
