"""What docs/websocket.md says: its text, and the code in it."""

import re
from pathlib import Path

from django.conf import settings

DOCS = Path(settings.BASE_DIR) / "docs"
PAGE = (DOCS / "websocket.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language, in the order of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
