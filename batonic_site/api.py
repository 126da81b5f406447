"""The REST API: the apps' routers under /api, and one form for every error: {"detail": text}. Floor 5.

The OpenAPI page is /api/docs; like every page it needs a login.
"""

import logging
from collections.abc import Callable
from typing import Any

from csp.constants import UNSAFE_INLINE
from csp.decorators import csp_update
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import ValidationError

import batonic_site.health
import history.api
import orderbook.api
import replay.api

log = logging.getLogger(__name__)

# Swagger UI sets style attributes; nothing else on the site may.
_docs_csp: Callable[..., Any] = csp_update({"style-src": [UNSAFE_INLINE]})

api = NinjaAPI(title="Batonic", version=settings.VERSION, urls_namespace="api", docs_decorator=_docs_csp)
api.add_router("", batonic_site.health.router, tags=["health"])
api.add_router("", history.api.router, tags=["history"])
api.add_router("", orderbook.api.router, tags=["live book"])
api.add_router("", replay.api.router, tags=["replay control"])


@api.exception_handler(OperationalError)
@api.exception_handler(InterfaceError)
def explain_missing_database(request: HttpRequest, error: DatabaseError) -> HttpResponse:
    """Answer 503: the request may be right, and is worth another try."""
    log.warning("%s %s: PostgreSQL does not answer: %s", request.method, request.path, str(error).strip())
    return api.create_response(request, {"detail": "The database does not answer; try again."}, status=503)


@api.exception_handler(ValidationError)
def explain_invalid_input(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """Answer 400 with the field, and what was expected of it."""
    reasons = [f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors]
    return api.create_response(request, {"detail": "; ".join(reasons)}, status=400)
