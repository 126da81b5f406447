"""The REST reads of the history: every shape and every error."""

import json
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.test import AsyncClient, Client

from history.tests.rows import CENT, SECOND, TS, instrument, snapshot, store

pytestmark = pytest.mark.django_db

RANGE = {"symbol": "CLX5", "start": "2025-09-24T19:30:00Z", "end": "2025-09-24T19:30:59.999999999Z"}


@pytest.fixture
def api(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_user("ann"))
    return client


def test_strangers_are_refused(client: Client) -> None:
    for path in ("symbols", "latest", "range", "history", "feed"):
        assert client.get(f"/api/{path}").status_code == 401


def test_public_read_opens_the_reads(client: Client, settings: object) -> None:
    settings.PUBLIC_READ = True  # type: ignore[attr-defined]
    assert client.get("/api/symbols").status_code == 200


def test_symbols(api: Client) -> None:
    instrument("ESH5")
    instrument("CLX5")
    assert api.get("/api/symbols").json() == ["CLX5", "ESH5"]


def test_latest_has_exact_prices_and_every_field(api: Client) -> None:
    instrument()
    store(snapshot(1, ts_event=TS + 123_456_789, bid=6520 * CENT, ask=6525 * CENT))
    answer = api.get("/api/latest", {"symbol": "CLX5"})
    assert answer["Content-Type"] == "application/json"
    assert json.loads(answer.content, parse_float=str) == {
        "ts": "2025-09-24T19:30:00.123456+00:00",
        "symbol": "CLX5",
        "best_bid_px": "65.20",
        "best_bid_sz": 5,
        "best_ask_px": "65.25",
        "best_ask_sz": 7,
        "mid": "65.225",
        "spread": "0.05",
        "ts_ns": str(TS + 123_456_789),
        "sequence": "1",
        "best_bid_ct": 2,
        "best_ask_ct": 3,
        "state": "ok",
    }


def test_an_empty_side_is_null(api: Client) -> None:
    instrument()
    store(snapshot(ask=None))
    row = api.get("/api/latest", {"symbol": "CLX5"}).json()
    assert (row["best_ask_px"], row["best_ask_sz"], row["mid"], row["spread"]) == (None, 0, None, None)
    assert row["state"] == "one_sided"


def test_negative_prices_are_exact(api: Client) -> None:
    instrument()
    store(snapshot(bid=-3763 * CENT, ask=-3762 * CENT))
    text = api.get("/api/latest", {"symbol": "CLX5"}).content.decode()
    assert '"best_bid_px":-37.63,' in text
    assert '"mid":-37.625,' in text


@pytest.mark.parametrize("path", ["latest", "range"])
def test_no_data_is_404(api: Client, path: str) -> None:
    answer = api.get(f"/api/{path}", {"symbol": "NOPE"})
    assert (answer.status_code, answer.json()) == (404, {"detail": "No data for symbol"})


@pytest.mark.parametrize("path", ["latest", "range", "history"])
def test_a_missing_symbol_is_400_and_named(api: Client, path: str) -> None:
    answer = api.get(f"/api/{path}")
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("symbol: ")


def test_range(api: Client) -> None:
    instrument()
    store(snapshot(0), snapshot(1), snapshot(60, ts_event=TS + 60 * SECOND + 1))
    answer = api.get("/api/range", {"symbol": "CLX5"}).json()
    assert answer == {
        "start_ts": "2025-09-24T19:30:00.000000+00:00",
        "end_ts": "2025-09-24T19:31:00.000001+00:00",  # rounded up, so that a query to there has the last row
        "rows": 3,
        "start_ts_ns": str(TS),
        "end_ts_ns": str(TS + 60 * SECOND + 1),
    }


def test_history_is_an_array_in_time_order(api: Client) -> None:
    instrument()
    store(*(snapshot(index) for index in reversed(range(70))))
    rows = api.get("/api/history", RANGE).json()
    assert [row["sequence"] for row in rows] == [str(index) for index in range(60)]
    assert [row["sequence"] for row in api.get("/api/history", RANGE | {"limit": 2}).json()] == ["0", "1"]


def test_history_returns_2000_rows_unless_told_otherwise(api: Client) -> None:
    instrument()
    store(*(snapshot(index, ts_event=TS + index) for index in range(2100)))
    assert len(api.get("/api/history", RANGE).json()) == 2000
    assert len(api.get("/api/history", RANGE | {"limit": 20000}).json()) == 2100


def test_history_of_a_known_symbol_may_be_empty(api: Client) -> None:
    instrument()
    assert api.get("/api/history", RANGE).json() == []


def test_history_of_an_unknown_symbol_is_404(api: Client) -> None:
    answer = api.get("/api/history", RANGE)
    assert (answer.status_code, answer.json()) == (404, {"detail": "No data for symbol"})


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "20001"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"start": "now"}, "start"),
        ({"end": "2025-09-24T19:29:00Z"}, "end"),
        ({"start": "2025-09-24T19:30:00"}, "start"),
    ],
)
def test_wrong_parameters_are_400_and_named(api: Client, change: dict[str, str], name: str) -> None:
    answer = api.get("/api/history", RANGE | change)
    assert answer.status_code == 400
    assert list(answer.json()) == ["detail"]
    assert answer.json()["detail"].startswith(f"{name}: ")


def test_feed_is_404_before_there_is_a_file(api: Client, data_folder: Path) -> None:
    assert api.head("/api/feed").status_code == 404
    answer = api.get("/api/feed")
    assert answer.status_code == 404
    assert "no feed file" in answer.json()["detail"]


@async_to_sync
async def ask_feed(method: str) -> tuple[int, bytes, dict[str, str]]:
    """Ask as an ASGI server does, on this thread."""
    client = AsyncClient()
    await client.aforce_login(await get_user_model().objects.acreate_user("ann"))
    answer = await getattr(client, method)("/api/feed")
    body = b"".join([piece async for piece in answer.streaming_content]) if method == "get" else b""
    return answer.status_code, body, dict(answer.items())


def test_feed_is_the_files_whole_lines(data_folder: Path) -> None:
    lines = b'{"symbol":"CLX5"}\n' * 40_000  # more than two pieces
    (data_folder / "snapshots_feed.jsonl").write_bytes(lines + b'{"symbol":"half a li')
    _, body, headers = ask_feed("get")
    assert body == lines
    assert headers["Content-Type"] == "application/x-ndjson"
    assert headers["Content-Disposition"] == 'attachment; filename="snapshots_feed.jsonl"'
    assert headers["Content-Length"] == str(len(lines))


@pytest.mark.parametrize("content", [b"", b"no newline yet", b"x" * 600_000])
def test_a_feed_without_a_whole_line_is_empty(data_folder: Path, content: bytes) -> None:
    (data_folder / "snapshots_feed.jsonl").write_bytes(content)
    assert ask_feed("get")[1] == b""


def test_head_of_the_feed_says_that_there_is_one(data_folder: Path) -> None:
    (data_folder / "snapshots_feed.jsonl").write_bytes(b"{}\n")
    status, _, headers = ask_feed("head")
    assert (status, headers["Content-Length"]) == (200, "3")


def test_openapi_names_the_parameters(client: Client) -> None:
    client.force_login(get_user_model().objects.create_superuser("root"))
    paths = client.get("/api/openapi.json").json()["paths"]
    assert [p["name"] for p in paths["/api/history"]["get"]["parameters"]] == ["symbol", "start", "end", "limit"]
