"""What supervisors are told: whether the process lives, and whether it is of use now. Floor 3.

Pure: what is known comes in. The reasons are those of the status; they name hosts, ports and files, and no secret.
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from engine_worker.metrics_server import Page


def livez(dead: Sequence[str]) -> Page:
    """Return 200 while every thread runs, else 503 with the names of those that a programming fault has ended."""
    return _page({} if not dead else dict.fromkeys(dead, "its thread has ended"))


def readyz(state: str, degraded: Mapping[str, str]) -> Page:
    """Return 200 while the feed is connected and every part works, else 503 with the reason of each that does not."""
    reasons = dict(degraded)
    if state == "stopping":
        reasons["engine"] = "stopping"
    elif state == "connecting":
        reasons.setdefault("feed", "not connected")
    return _page(reasons)


def _page(reasons: Mapping[str, str]) -> Page:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    body = json.dumps({"ok": not reasons, "reasons": reasons}).encode() + b"\n"
    return Page(status, "application/json", body)
