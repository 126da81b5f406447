"""The pages in a real browser, against a real daphne, PostgreSQL and Redis.

The replay control API is answered by the test: what it really does is tested with the control plane.
"""

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from playwright.sync_api import Page, expect

from batonic_site.tests.fixtures import Spawn
from history.tests.rows import instrument, store
from history.tests.rows import snapshot as stored
from orderbook.book.snapshot import BookSnapshot
from orderbook.live import BOOK_TTL_S, book_text
from orderbook.tests.books import TS, keep, message, publish, snapshot
from orderbook.tests.pages import FakeControl, sign_in
from orderbook.tests.web import PASSWORD, listens

pytestmark = pytest.mark.django_db(transaction=True)

PHONE = {"width": 390, "height": 844}


@contextmanager
def streaming(client: redis.Redis, book: Callable[[int], BookSnapshot]) -> Iterator[None]:
    """Publish a book every 30 ms while the block runs."""
    ended = threading.Event()

    def run() -> None:
        for seq in itertools.count(1):
            publish(client, [book(seq)])
            if ended.wait(0.03):
                return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_stranger_is_sent_to_the_login_and_back(web: str, page: Page, page_errors: list[str], reader: Any) -> None:
    page.goto(web + "/history/")
    expect(page).to_have_url(web + "/login/?next=/history/")
    page.get_by_label("Username").fill("rita")
    page.get_by_label("Password").fill("wrong-password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("correct username and password")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile(r"/history/"))
    assert page_errors == []


def test_the_live_page_shows_the_market(
    web: str, page: Page, page_errors: list[str], operator: Any, redis_client: redis.Redis, control: FakeControl
) -> None:
    control.replay["state"] = "REPLAYING"
    said: list[dict[str, Any]] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda text: said.append(json.loads(text))))
    sign_in(page, web, operator)
    with streaming(redis_client, lambda seq: snapshot(seq, bid=6483 + seq % 2, ask=6485 + seq % 2)):
        expect(page.get_by_test_id("connection")).to_have_text("live")
        expect(page.get_by_test_id("best-bid")).to_have_text(re.compile(r"^64\.8[34]$"))
        expect(page.get_by_test_id("best-ask")).to_have_text(re.compile(r"^64\.8[56]$"))
        expect(page.get_by_test_id("spread")).to_have_text("0.02")
        expect(page.get_by_test_id("book-state")).to_have_text("book ok")
        expect(page.get_by_test_id("event-time")).to_have_text("19:30:00.001\u202f385\u202f399")
        expect(page.get_by_test_id("replay-state")).to_have_text("replaying")
        expect(page.get_by_test_id("position")).to_have_text("19\u202f106 / 38\u202f212")
        page.wait_for_function("() => +document.querySelector('#seq').textContent.replace(/\\D/g, '') > 20")
    assert [told["symbol"] for told in said if told["type"] == "ack"], "the page acknowledges what it has read"
    expect(page.get_by_test_id("connection")).to_contain_text("stale", timeout=6000)
    assert page_errors == []


def test_the_page_says_when_no_engine_is_behind_its_book(
    web: str, page: Page, page_errors: list[str], reader: Any, redis_client: redis.Redis, control: FakeControl
) -> None:
    keep(redis_client, snapshot(1), lives_s=BOOK_TTL_S - 2)  # as if it had been renewed two seconds ago
    sign_in(page, web, reader)
    badge = page.get_by_test_id("connection")
    expect(page.get_by_test_id("best-bid")).to_have_text("64.83")
    expect(badge).to_contain_text("stale")
    expect(badge).to_have_attribute("title", "no engine renews the book of CLX5")
    keep(redis_client, snapshot(1))
    expect(badge).to_have_text("connected")
    expect(badge).to_have_attribute("title", "")
    assert page_errors == []


def test_who_signs_out_in_another_tab_is_sent_to_the_login(
    web: str, page: Page, page_errors: list[str], reader: Any, redis_client: redis.Redis, control: FakeControl
) -> None:
    sign_in(page, web, reader)
    expect(page.get_by_test_id("connection")).to_have_text("connected")
    other = page.context.new_page()
    other.goto(web + "/history/")
    other.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(web + "/login/?next=/")
    assert page_errors == []


def test_the_ladder_shows_sizes_beside_prices_and_stands_still_while_read(
    web: str, page: Page, page_errors: list[str], reader: Any, redis_client: redis.Redis, control: FakeControl
) -> None:
    keep(redis_client, snapshot(1, count=10))
    sign_in(page, web, reader)
    row = page.locator(".rung", has_text="64.81")
    expect(row.locator(".bids.size")).to_have_text("3")
    expect(row.locator(".bids.count")).to_have_text("1")
    expect(page.locator(".best-bid .price")).to_have_text("64.83")
    expect(page.locator(".best-ask .price")).to_have_text("64.84")
    middle = page.locator(".rung .price").nth(13)
    first = middle.text_content()
    page.get_by_role("table").hover()
    publish(redis_client, [snapshot(2, bid=6600, ask=6601)])
    expect(page.locator("#ladder-note")).to_contain_text("market is above")
    expect(middle).to_have_text(str(first))
    page.keyboard.press("c")
    expect(page.locator(".best-bid .price")).to_have_text("66.00")
    expect(middle).to_have_text("66.01")
    page.get_by_role("table").focus()
    page.keyboard.press("ArrowUp")
    expect(middle).to_have_text("66.02")
    page.get_by_role("button", name="Recentre").click()
    expect(middle).to_have_text("66.01")
    assert page_errors == []


def test_every_state_of_the_book_is_said_in_words(
    web: str, page: Page, page_errors: list[str], reader: Any, redis_client: redis.Redis, control: FakeControl
) -> None:
    sign_in(page, web, reader)
    expect(page.get_by_test_id("connection")).to_have_text("connected")
    states = [(6484, 6484, "locked"), (6490, 6484, "crossed"), (None, 6484, "one sided"), (None, None, "empty")]
    for seq, (bid, ask, words) in enumerate(states, 1):
        publish(redis_client, [snapshot(seq, bid=bid, ask=ask)])
        expect(page.get_by_test_id("book-state")).to_have_text(words)
        expect(page.get_by_test_id("best-bid")).to_have_text("–" if bid is None else f"{bid / 100:.2f}")
    assert page_errors == []


def test_the_trail_goes_back_with_the_replay(
    web: str, page: Page, page_errors: list[str], reader: Any, redis_client: redis.Redis, control: FakeControl
) -> None:
    sign_in(page, web, reader)
    expect(page.get_by_test_id("connection")).to_have_text("connected")
    for seq, (second, span) in enumerate([(10, ""), (30, "20.0 s"), (12, "2.0 s"), (5, ""), (8, "3.0 s")], 1):
        publish(redis_client, [snapshot(seq, ts_event=TS + second * 10**9)])
        expect(page.locator("#trail-span")).to_have_text(f"{span} of market time" if span else "")
        expect(page.get_by_test_id("seq")).to_have_text(str(seq))
    assert page_errors == []


def test_symbol_and_depth_can_be_changed(
    web: str, page: Page, page_errors: list[str], reader: Any, redis_client: redis.Redis, control: FakeControl
) -> None:
    instrument("CLX5")
    instrument("ESZ5")
    keep(redis_client, snapshot(1))
    keep(redis_client, snapshot(1, symbol="ESZ5", bid=660000, ask=660001))
    sign_in(page, web, reader)
    expect(page.locator("#ladder-note")).to_contain_text("50 bid and 50 ask levels")
    page.get_by_role("combobox", name="Depth").select_option("10")
    expect(page.locator("#ladder-note")).to_contain_text("10 bid and 10 ask levels")
    page.get_by_role("combobox", name="Symbol").select_option("ESZ5")
    expect(page.get_by_test_id("best-bid")).to_have_text("6600.00")
    expect(page.get_by_role("link", name="Final book")).to_have_attribute(
        "href", re.compile("/api/book/final\\?symbol=ESZ5$")
    )
    assert page_errors == []


def test_a_book_of_the_symbol_before_is_neither_kept_nor_shown(
    web: str, page: Page, page_errors: list[str], reader: Any, redis_client: redis.Redis, control: FakeControl
) -> None:
    instrument("CLX5")
    instrument("ESZ5")
    sockets: list[Any] = []
    page.route_web_socket(
        re.compile("/ws$"), lambda way: sockets.append(way)
    )  # the server's part is played by the test
    sign_in(page, web, reader)
    expect(page.get_by_test_id("connection")).to_have_text("connecting")
    socket = sockets[0]
    socket.send('{"type":"hello"}')
    socket.send(book_text(message(snapshot(1)), 10))
    expect(page.get_by_test_id("best-bid")).to_have_text("64.83")
    page.get_by_role("combobox", name="Symbol").select_option("ESZ5")
    for name in ("best-bid", "best-ask", "mid", "spread", "event-time", "seq"):
        expect(page.get_by_test_id(name)).to_have_text("–")
    expect(page.get_by_test_id("book-state")).to_have_text("no book")
    expect(page.locator("#ladder-note")).to_have_text("Waiting for the first book")
    expect(page.locator(".rung .price").nth(13)).to_have_text("")
    socket.send(book_text(message(snapshot(2, bid=6400, ask=6401)), 10))  # it was on its way
    socket.send(
        '{"type":"status","symbol":"CLX5","seq":2,"status":"stale","reason":"redis","detail":"of the symbol before"}'
    )
    socket.send('{"type":"error","code":"try_later","detail":"all of them are read"}')
    expect(page.locator("#problem")).to_have_text("all of them are read")
    page.evaluate("() => new Promise(painted => requestAnimationFrame(() => requestAnimationFrame(painted)))")
    expect(page.get_by_test_id("best-bid")).to_have_text("–")
    expect(page.get_by_test_id("connection")).not_to_have_attribute("title", "of the symbol before")
    socket.send(book_text(message(snapshot(3, symbol="ESZ5", bid=660000, ask=660001)), 10))
    expect(page.get_by_test_id("best-bid")).to_have_text("6600.00")
    assert page_errors == []


def test_the_page_comes_back_after_a_restart_of_the_server(
    spawn: Spawn,
    process_env: dict[str, str],
    data_folder: Path,
    static_files: Path,
    page: Page,
    reader: Any,
    redis_client: redis.Redis,
    control: FakeControl,
) -> None:
    (data_folder / "static").symlink_to(static_files)
    keep(redis_client, snapshot(1))
    process = spawn("runweb", until=lambda: listens(process_env))
    sign_in(page, f"http://127.0.0.1:{process_env['WEB_PORT']}", reader)
    page.get_by_role("combobox", name="Depth").select_option("10")
    expect(page.locator("#ladder-note")).to_contain_text("10 bid")
    process.terminate()
    process.wait(10)
    expect(page.get_by_test_id("connection")).to_have_text("reconnecting")
    keep(redis_client, snapshot(2, bid=6400, ask=6401))
    spawn("runweb")
    expect(page.get_by_test_id("best-bid")).to_have_text("64.00", timeout=15_000)
    expect(page.locator("#ladder-note")).to_contain_text("10 bid")


def test_less_motion_means_two_paints_a_second(
    web: str, page: Page, reader: Any, redis_client: redis.Redis, control: FakeControl
) -> None:
    page.emulate_media(reduced_motion="reduce")
    sign_in(page, web, reader)
    with streaming(redis_client, snapshot):
        expect(page.get_by_test_id("best-bid")).to_have_text("64.83")
        paints = page.evaluate(
            """() => new Promise(resolve => {
                 let paints = 0;
                 new MutationObserver(() => paints++).observe(
                   document.querySelector('#seq'), {childList: true, characterData: true, subtree: true});
                 setTimeout(() => resolve(paints), 2000);
               })"""
        )
    assert 1 <= paints <= 5


def test_pages_fit_a_phone(
    web: str, page: Page, page_errors: list[str], operator: Any, redis_client: redis.Redis, control: FakeControl
) -> None:
    page.set_viewport_size(PHONE)
    instrument()
    store(*(stored(index) for index in range(20)))
    keep(redis_client, snapshot(1))
    page.goto(web + "/login/")
    widths = [page.evaluate("() => document.documentElement.scrollWidth")]
    sign_in(page, web, operator)
    expect(page.get_by_test_id("best-bid")).to_have_text("64.83")
    widths.append(page.evaluate("() => document.documentElement.scrollWidth"))
    small = page.evaluate(
        """() => [...document.querySelectorAll('button, select, a, input:not([type=hidden])')]
             .filter(node => node.offsetParent && !node.matches('.skip'))
             .map(node => node.closest('label.check') ?? node)
             .map(node => [node.textContent.trim() || node.name, node.getBoundingClientRect()])
             .filter(([, box]) => Math.min(box.width, box.height) < 24).map(([name]) => name)"""
    )
    page.goto(web + "/history/")
    expect(page.locator("svg")).to_have_count(3)
    widths.append(page.evaluate("() => document.documentElement.scrollWidth"))
    assert widths == [390, 390, 390]
    assert small == []
    assert page_errors == []


def test_history_is_drawn_without_javascript(web: str, browser: Any, reader: Any) -> None:
    instrument()
    store(*(stored(index) for index in range(20)))
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, web, reader, "/history/")
    expect(page.locator("svg[role=img]")).to_have_count(3)
    page.get_by_label("From").fill("2025-09-24T19:30:05Z")
    page.get_by_label(re.compile("^To UTC")).fill("2025-09-24T19:30:09.000000000Z")
    page.get_by_role("button", name="Query").click()
    expect(page.locator(".summary")).to_contain_text("5 snapshots of CLX5")
    expect(page.locator("table tbody tr")).to_have_count(5)
    page.get_by_role("button", name="Auto fill").click()
    expect(page.get_by_label(re.compile("^To UTC"))).to_have_value("2025-09-24T19:30:19.000000000Z")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "CLX5_history.csv"
    context.close()


def test_error_pages_look_like_the_site(web: str, page: Page, reader: Any, control: FakeControl) -> None:
    sign_in(page, web, reader)
    page.goto(web + "/nothing/here")
    expect(page.get_by_role("heading", name="Page not found")).to_be_visible()
    assert page.evaluate("() => getComputedStyle(document.body).margin") == "0px"


def test_the_keyboard_reaches_the_content_first(web: str, page: Page, reader: Any, control: FakeControl) -> None:
    sign_in(page, web, reader)
    expect(page.get_by_test_id("connection")).to_have_text("connected")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
