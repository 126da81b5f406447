"""The history page and its downloads, without a browser."""

import csv
import io
import json
import re

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.test import AsyncClient, Client
from django.urls import reverse

from history import page_charts
from history.tests.rows import CENT, instrument, snapshot, store
from history.views import RAW_ROWS

pytestmark = pytest.mark.django_db

RANGE = {"symbol": "CLX5", "start": "2025-09-24T19:30:00Z", "end": "2025-09-24T19:30:59Z"}


@pytest.fixture
def pages(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("ann"))
    return client


def html(pages: Client, status: int = 200, **changes: str) -> str:
    answer = pages.get(reverse("history"), RANGE | changes)
    assert answer.status_code == status
    return answer.content.decode()


def test_strangers_are_sent_to_the_login(client: Client) -> None:
    for name in ("live", "history", "history-csv", "history-jsonl"):
        assert client.get(reverse(name))["Location"].startswith("/login/")


def test_three_charts_are_drawn_by_the_server(pages: Client) -> None:
    instrument()
    store(*(snapshot(index, ask=(6484 + index % 3) * CENT) for index in range(50)))
    page = html(pages)
    assert len(re.findall(r"<svg[^>]* role=\"img\"", page)) == 3
    assert len(re.findall(r"<title id=", page)) == len(re.findall(r"<desc id=", page)) == 3
    assert "50 of 50 points shown, minimum 0.01, maximum 0.03." in page
    assert re.search(r'class="line bid" d="M', page) and re.search(r'class="line ask" d="M', page)
    assert "style=" not in page and "<script" not in page


def test_the_first_five_rows_are_shown_as_they_are(pages: Client) -> None:
    instrument()
    store(*(snapshot(index) for index in range(9)))
    page = html(pages)
    assert page.count("<td>CLX5</td>") == RAW_ROWS == 5
    assert "<td>64.83</td>" in page and "<td>64.835</td>" in page


@pytest.mark.parametrize(("rows", "words"), [(0, "there are 0"), (1, "there is 1")])
def test_fewer_than_two_points_are_said_in_words(pages: Client, rows: int, words: str) -> None:
    instrument()
    store(*(snapshot(index) for index in range(rows)))
    page = html(pages)
    assert page.count("A chart needs at least two points") == 3
    assert words in page
    assert "<svg" not in page


def test_a_side_that_is_always_empty_leaves_its_charts_in_words(pages: Client) -> None:
    instrument()
    store(*(snapshot(index, ask=None) for index in range(5)))
    page = html(pages)
    assert page.count("A chart needs at least two points") == 2
    assert page.count("<svg") == 1


def test_a_long_range_says_how_much_it_shows(pages: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_charts, "MOST_ROWS", 10)
    instrument()
    store(*(snapshot(index) for index in range(25)))
    assert "The charts show the first 10" in html(pages)


def test_auto_fill_takes_the_range_of_the_database(pages: Client) -> None:
    instrument()
    store(snapshot(0), snapshot(7))
    answer = pages.get(reverse("history"), {"symbol": "CLX5", "fill": "1", "start": "", "end": ""})
    assert answer.status_code == 302
    page = pages.get(answer["Location"]).content.decode()
    assert 'value="2025-09-24T19:30:00.000000000Z"' in page
    assert 'value="2025-09-24T19:30:07.000000000Z"' in page


def test_auto_fill_of_a_symbol_without_data_says_so(pages: Client) -> None:
    assert "Nothing is stored yet" in pages.get(reverse("history"), {"symbol": "CLX5", "fill": "1"}).content.decode()


def test_wrong_input_comes_back_with_the_error(pages: Client) -> None:
    page = html(pages, 400, start="tea time")
    assert 'role="alert"' in page
    assert "From: expected a time such as" in page
    assert 'value="tea time"' in page


def test_hostile_input_is_escaped(pages: Client) -> None:
    page = html(pages, 400, symbol="<script>alert(1)</script>", start="<img>")
    assert "<script>" not in page and "<img>" not in page


@async_to_sync
async def download(name: str, **changes: str) -> tuple[str, str]:
    client = AsyncClient()
    await client.aforce_login(await get_user_model().objects.acreate_user("ann"))
    answer = await client.get(reverse(name), RANGE | changes)
    assert answer.status_code == 200
    body = b"".join([piece async for piece in answer.streaming_content])
    return body.decode(), answer["Content-Disposition"]


def fill(rows: int) -> None:
    instrument()
    store(
        *(snapshot(index, ts_event=1_758_742_200_000_000_000 + index) for index in range(rows)), snapshot(7, ask=None)
    )


def test_csv_has_every_row_of_the_range() -> None:
    fill(4321)
    body, disposition = download("history-csv")
    rows = list(csv.DictReader(io.StringIO(body)))
    assert disposition == 'attachment; filename="CLX5_history.csv"'
    assert len(rows) == 4322
    assert rows[1]["best_bid_px"] == "64.83" and rows[1]["ts_ns"] == "1758742200000000001"
    assert rows[-1]["best_ask_px"] == "" and rows[-1]["mid"] == ""


def test_jsonl_has_every_row_of_the_range() -> None:
    fill(10)
    body, disposition = download("history-jsonl")
    rows = [json.loads(line) for line in body.splitlines()]
    assert disposition == 'attachment; filename="CLX5_history.jsonl"'
    assert [row["sequence"] for row in rows] == [*(str(index) for index in range(10)), "7"]


def test_a_file_name_holds_no_hostile_letters() -> None:
    _, disposition = download("history-csv", symbol='a"/\r\nX: é')
    assert disposition == 'attachment; filename="a____X____history.csv"'


@pytest.mark.parametrize("symbol", ["CLX5\0", "X" * 72, ""])
def test_auto_fill_of_no_symbol_at_all_falls_back_to_the_usual_one(pages: Client, symbol: str) -> None:
    store(snapshot(0))
    answer = pages.get(reverse("history"), {"fill": "1", "symbol": symbol})
    assert answer.status_code == 302 and "symbol=CLX5" in answer.url


def test_a_download_with_a_wrong_range_is_refused(pages: Client) -> None:
    answer = pages.get(reverse("history-csv"), RANGE | {"end": "never"})
    assert answer.status_code == 400
    assert answer.content.decode().startswith("end: expected a time")


def test_admin_shows_snapshots_readably_and_cannot_change_them(pages: Client) -> None:
    instrument()
    store(*(snapshot(index) for index in range(3)), snapshot(0, symbol="ESZ5", ask=None))
    page = pages.get(reverse("admin:history_snapshot_changelist"), {"symbol": "CLX5"}).content.decode()
    assert "2025-09-24T19:30:02.000000000Z" in page and "64.84" in page
    assert page.count('class="field-time"') + page.count("field-time nowrap") >= 3
    assert pages.get(reverse("admin:history_snapshot_add")).status_code == 403
    row = reverse("admin:history_snapshot_change", args=[page_charts.queries.Snapshot.objects.latest("id").pk])
    assert "ESZ5" in pages.get(row).content.decode()
    assert pages.post(row, {}).status_code == 403


def test_admin_never_counts_a_big_table(pages: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("history.admin.MOST_COUNTED", 120)
    store(*(snapshot(index) for index in range(300)))
    assert "120 snapshots" in pages.get(reverse("admin:history_snapshot_changelist")).content.decode()


def test_admin_corrects_a_tick(pages: Client) -> None:
    row = instrument(tick_size=250_000_000)
    assert "0.25" in pages.get(reverse("admin:history_instrument_changelist")).content.decode()
    address = reverse("admin:history_instrument_change", args=[row.pk])
    assert pages.post(address, {"tick_size": "0"}).status_code == 200
    assert pages.post(address, {"tick_size": "10000000"}).status_code == 302
    row.refresh_from_db()
    assert row.tick_size == CENT
