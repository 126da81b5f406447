"""REST reads of the book itself."""

from pathlib import Path
from typing import Any

import pytest
import redis
from django.contrib.auth import get_user_model
from django.test import Client

from orderbook import newest
from orderbook.live import FULL_BOOK_KEY, final_book_name

pytestmark = pytest.mark.django_db


@pytest.fixture
def api(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_user("ann"))
    return client


@pytest.mark.parametrize("path", ["/api/book", "/api/book/final"])
def test_strangers_are_refused(client: Client, path: str) -> None:
    assert client.get(path, {"symbol": "CLX5"}).status_code == 401


def test_the_live_book_is_what_the_engine_left(api: Client, redis_client: redis.Redis) -> None:
    assert api.get("/api/book", {"symbol": "CLX5"}).status_code == 404
    redis_client.set(FULL_BOOK_KEY.format(symbol="CLX5"), '{"symbol":"CLX5","bids":[[64.80,1,1]],"asks":[]}')
    answer = api.get("/api/book", {"symbol": "CLX5"})
    assert answer["Content-Type"] == "application/json"
    assert answer.content == b'{"symbol":"CLX5","bids":[[64.80,1,1]],"asks":[]}'


@pytest.mark.parametrize("path", ["/api/book", "/api/book/final"])
def test_a_missing_symbol_is_400(api: Client, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 400
    assert "symbol" in answer.json()["detail"]


def test_redis_away_is_502(api: Client, settings: Any) -> None:
    newest._client.cache_clear()
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    try:
        answer = api.get("/api/book", {"symbol": "CLX5"})
    finally:
        newest._client.cache_clear()
    assert answer.status_code == 502
    assert answer.json()["detail"].startswith("Cannot reach Redis")


def test_the_final_book_is_a_file_to_save(api: Client, data_folder: Path, settings: Any) -> None:
    answer = api.get("/api/book/final", {"symbol": "CLX5"})
    assert (answer.status_code, "No final book for CLX5" in answer.json()["detail"]) == (404, True)
    settings.FINAL_BOOK_FOLDER.mkdir()
    (settings.FINAL_BOOK_FOLDER / final_book_name("CLX5")).write_text('{"symbol":"CLX5","bids":[],"asks":[]}')
    answer = api.get("/api/book/final", {"symbol": "CLX5"})
    assert answer.json() == {"symbol": "CLX5", "bids": [], "asks": []}
    assert answer["Content-Disposition"] == 'attachment; filename="final_CLX5.json"'


@pytest.mark.parametrize("symbol", ["../secret", "..", "/etc/passwd", "a/b", "x" * 71])
def test_a_symbol_never_becomes_a_path(api: Client, data_folder: Path, settings: Any, symbol: str) -> None:
    settings.FINAL_BOOK_FOLDER.mkdir()
    (data_folder / "secret.json").write_text("secret")
    assert api.get("/api/book/final", {"symbol": symbol}).status_code == 404
