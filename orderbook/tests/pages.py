"""A control API that a test plays, and signed-in pages. What the real one does is tested with the control plane."""

import time
from typing import Any

import pytest
from django.test import Client
from playwright.sync_api import Page, Route

STATUS = {
    "state": "IDLE",
    "pid": 7,
    "rate": 1000,
    "pace": {"records_per_s": 1000},
    "skip_idle_s": None,
    "achieved_records_per_s": 1004,
    "dataset": "CLX5.dbn",
    "position": {
        "record": 19106,
        "records": 38212,
        "event": 12044,
        "fraction": 0.5,
        "ts": "2025-09-24T20:12:07.118204551Z",
    },
    "clients": 1,
    "lag_records": 12,
    "error": "",
}
STATE_AFTER = {"start": "REPLAYING", "pause": "PAUSED", "resume": "REPLAYING", "step": "PAUSED", "stop": "STOPPED"}


class FakeControl:
    """The control API as the page sees it: a replay that does as it is told, and what it was told."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.replay: dict[str, Any] = dict(STATUS)
        self.asked: list[tuple[str, Any]] = []
        self.keys: list[str] = []
        self.answers: dict[str, tuple[int, Any]] = {}  # instead of doing as it is told
        self.held: list[Route] | None = None  # as a list it keeps the commands that no answer comes to
        page.route("**/api/control/replay/*", self._handle)

    def answer(self, route: Route) -> None:
        """Carry out one command, or refuse it as ``answers`` says."""
        verb, body = route.request.url.rsplit("/", 1)[1], route.request.post_data_json
        if verb not in self.answers:
            self.replay |= {"state": STATE_AFTER.get(verb, self.replay["state"])}
            self.replay |= {key: body[key] for key in ("pace", "skip_idle_s") if body and key in body}
        status, answer = self.answers.get(verb, (200, self.replay if verb == "status" else self._verb_answer()))
        route.fulfill(status=status, json=answer)

    def _verb_answer(self) -> dict[str, Any]:
        """Return what a command answers: less than the status does, with the streamer's own words beside it."""
        fields = {key: self.replay[key] for key in ("state", "rate", "pace", "dataset", "position")}
        return {**fields, "upstream": self.replay | {"position": self.replay["position"]["record"]}}

    def told(self, count: int) -> list[tuple[str, Any]]:
        """Wait for so many commands, forget them and return them."""
        deadline = time.monotonic() + 20
        while len(self.asked) < count:
            assert time.monotonic() < deadline, f"{count} commands were expected, found {self.asked}"
            self._page.wait_for_timeout(10)  # a thread that waits outside of playwright sees no event of the page
        told, self.asked = self.asked, []
        return told

    def _handle(self, route: Route) -> None:
        verb = route.request.url.rsplit("/", 1)[1]
        if verb != "status":
            assert route.request.headers["x-csrftoken"]
            self.asked.append((verb, route.request.post_data_json))
            self.keys.append(route.request.headers["idempotency-key"])
            if self.held is not None:
                self.held.append(route)
                return
        self.answer(route)


@pytest.fixture
def control(page: Page) -> FakeControl:
    return FakeControl(page)


def sign_in(page: Page, base: str, user: Any, path: str = "/") -> None:
    """Open a page with a session; only the test of the login itself types a password."""
    client = Client()
    client.force_login(user)
    page.context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": base}])
    page.goto(base + path)
