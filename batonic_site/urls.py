"""Every address of the site. Pages need a login by default; the API checks its callers itself. Floor 5."""

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, include, path
from django.views import defaults

from batonic_site import health
from batonic_site.api import api
from batonic_site.forms import AdminLoginForm, LoginForm

_DOCS = {"openapi-json", "openapi-view"}

api_urls = api.urls  # made anew at each look
for _pattern in api_urls[0]:
    if isinstance(_pattern, URLPattern) and _pattern.name not in _DOCS:
        login_not_required(_pattern.callback)

sign_in = LoginView.as_view(template_name="login.html", authentication_form=LoginForm, redirect_authenticated_user=True)
admin.site.login_form = AdminLoginForm

urlpatterns = [
    path("livez", health.livez, name="livez"),
    path("readyz", health.readyz, name="readyz"),
    path("api/", api_urls),
    path("login/", sign_in, name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("", include("orderbook.urls")),
    path("", include("history.urls")),
]


def handler400(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer programs in their own form."""
    if request.path.startswith("/api/"):
        return JsonResponse({"detail": "Bad Request"}, status=400)
    return defaults.bad_request(request, exception)


def handler404(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer programs in their own form."""
    if request.path.startswith("/api/"):
        return JsonResponse({"detail": "Not Found"}, status=404)
    return defaults.page_not_found(request, exception)


def handler500(request: HttpRequest) -> HttpResponse:
    """Answer programs in their own form; the log has the traceback."""
    if request.path.startswith("/api/"):
        return JsonResponse({"detail": "Internal error; the server's log has the details."}, status=500)
    return defaults.server_error(request)
