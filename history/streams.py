"""Long answers, sent piece by piece: exports of the history, and the engine's feed file. Floor 4.

Django reads a plain iterator to its end before an ASGI server sends the first byte, so each stream here is
asynchronous and takes its pieces from a thread.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Generator
from itertools import islice
from pathlib import Path
from typing import Final

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse

from history.queries import export
from history.rows import CSV_COLUMNS, csv_line, row_json, row_texts

LINES_A_PIECE: Final = 2000
BYTES_A_PIECE: Final = 256 * 1024


def csv_lines(symbol: str, start_ns: int, end_ns: int, decimals: int) -> Generator[str]:
    """Yield the header line and a line for each snapshot of a range."""
    yield csv_line(CSV_COLUMNS)
    for quote in export(symbol, start_ns, end_ns):
        yield csv_line(row_texts(symbol, quote, decimals).values())


def json_lines(symbol: str, start_ns: int, end_ns: int, decimals: int) -> Generator[str]:
    """Yield a JSON object a line for each snapshot of a range."""
    for quote in export(symbol, start_ns, end_ns):
        yield row_json(symbol, quote, decimals) + "\n"


def attachment(
    content: AsyncGenerator[bytes], content_type: str, file_name: str, size: int | None = None
) -> StreamingHttpResponse:
    """Return a response that a browser saves under a name."""
    response = StreamingHttpResponse(content, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{file_name}"'
    if size is not None:
        response["Content-Length"] = str(size)
    return response


async def pieces(lines: Generator[str]) -> AsyncGenerator[bytes]:
    """Yield the lines in pieces. A client that goes away ends the generator, and the query with it."""
    try:
        while piece := await sync_to_async(lambda: "".join(islice(lines, LINES_A_PIECE)))():
            yield piece.encode()
    finally:
        await sync_to_async(lines.close)()


def whole_lines(path: Path) -> int | None:
    """Return how many bytes of whole lines a file has, which somebody may be writing; None without a file."""
    try:
        file = path.open("rb")
    except (FileNotFoundError, IsADirectoryError):
        return None
    with file:
        size = file.seek(0, os.SEEK_END)
        while size:
            start = max(0, size - BYTES_A_PIECE)
            file.seek(start)
            end = file.read(size - start).rfind(b"\n") + 1
            if end:
                return start + end
            size = start
        return 0


async def file_pieces(path: Path, size: int) -> AsyncGenerator[bytes]:
    """Yield the first ``size`` bytes of a file."""
    with await asyncio.to_thread(path.open, "rb") as file:
        while size > 0 and (piece := await asyncio.to_thread(file.read, min(size, BYTES_A_PIECE))):
            size -= len(piece)
            yield piece
