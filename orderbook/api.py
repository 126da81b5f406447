"""REST reads of the book itself: the live one, and the one that a replay ended with. Floor 4."""

from pathlib import Path
from typing import Annotated

import redis.exceptions
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from ninja.errors import HttpError

from orderbook.live import final_book_name
from orderbook.newest import full_book_json
from replay.auth import READ_AUTH

router = Router(auth=READ_AUTH)

Symbol = Annotated[str, Query(min_length=1, max_length=71)]


@router.get("/book")
def live_book(request: HttpRequest, symbol: Symbol) -> HttpResponse:
    """The live book with every level, at most a second old; none once the engine has been gone for 15 s.

    Of more than 128 books those that nobody looks at are renewed by turns.
    """
    try:
        text = full_book_json(symbol)
    except (redis.exceptions.RedisError, OSError) as error:
        raise HttpError(502, f"Cannot reach Redis, where the live books are: {error}") from error
    if text is None:
        raise HttpError(404, f"No live book for {symbol}")
    return HttpResponse(text, content_type="application/json")


@router.get("/book/final")
def final_book(request: HttpRequest, symbol: Symbol) -> HttpResponse:
    """The book with every level as it stood when the last replay of the symbol ended, as a file to save."""
    name = final_book_name(symbol)
    try:
        text = Path(settings.FINAL_BOOK_FOLDER, name).read_bytes()
    except FileNotFoundError:
        raise HttpError(404, f"No final book for {symbol}: it is written when a replay ends") from None
    response = HttpResponse(text, content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="final_{name}"'
    return response
