"""The one settings file. Every value comes from the environment and has a working default. Floor 5.

Development, test and production differ by environment variables only; README.md has the table of names.
"""

import re
from pathlib import Path
from typing import Any

from csp.constants import NONE, SELF
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from batonic_site import env
from batonic_site.services.endpoints import read_endpoints
from batonic_site.services.secrets import stored_secret
from orderbook.live import DEFAULT_ENGINE

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = re.findall(r"^## (\d+\.\d+\.\d+)", (BASE_DIR / "CHANGELOG.md").read_text(), re.M)[0]

# Folders: everything that a run leaves behind lies under DATA_FOLDER.
DATA_FOLDER = env.folder("DATA_FOLDER", BASE_DIR / "var", make=True)
DATA_DIR = env.folder("DATA_DIR", BASE_DIR / "data")
CSV_PATH = env.text("CSV_PATH")

DEBUG = env.flag("DEBUG", False)
SECRET_KEY = env.secret("SECRET_KEY") or stored_secret(DATA_FOLDER / "secret_key")
SECRET_KEY_FALLBACKS = env.words("SECRET_KEY_FALLBACKS")
ADMIN_USER = env.text("ADMIN_USER", default="admin")
ADMIN_PASSWORD = env.secret("ADMIN_PASSWORD")
PUBLIC_READ = env.flag("PUBLIC_READ", False)

# Real servers, wherever they run: named by the environment, or started by `manage.py up`.
_endpoints = read_endpoints(DATA_FOLDER)
_postgres: dict[str, Any] = {
    "dbname": env.text("POSTGRES_DB", default="batonic"),
    "user": env.text("POSTGRES_USER", default="postgres"),
    "password": env.secret("POSTGRES_PASSWORD") or None,
    "host": env.text("POSTGRES_HOST", default="127.0.0.1"),
    "port": env.port("POSTGRES_PORT", default=5432),
}
PG_NAMED = bool(env.text("PG_CONNINFO", "DATABASE_URL", "POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE", "POSTGRES_HOST"))
_by_parts = make_conninfo(**_postgres)
PG_CONNINFO = env.conninfo(
    "PG_CONNINFO", "DATABASE_URL", default=_by_parts if PG_NAMED else _endpoints.get("pg_conninfo", _by_parts)
)
REDIS_NAMED = bool(env.text("REDIS_URL"))
REDIS_URL = env.redis_url("REDIS_URL", default=_endpoints.get("redis_url", "redis://127.0.0.1:6379/0"))


def _database(conninfo: str) -> dict[str, object]:
    """Turn a libpq connection string or URL into Django's form; the rest of its options stay options."""
    parts = conninfo_to_dict(conninfo)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.pop("dbname", "batonic"),
        "USER": parts.pop("user", ""),
        "PASSWORD": parts.pop("password", ""),
        "HOST": parts.pop("host", ""),
        "PORT": parts.pop("port", ""),
        "OPTIONS": {"connect_timeout": 5, **parts},
        "CONN_MAX_AGE": 0,  # under ASGI each request has a thread of its own: nothing to keep
    }


DATABASES = {"default": _database(PG_CONNINFO)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# channels_redis leaves redis-py's 5 s socket timeout and 100 connections in place: both break idle or many sockets.
# That a connection has died in silence is found by orderbook.pushes: redis-py asks for a PONG there and awaits none.
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {
            "hosts": [
                {"address": REDIS_URL, "socket_timeout": None, "socket_connect_timeout": 2, "max_connections": 5000}
            ]
        },
    }
}
CELERY_BROKER_URL = REDIS_URL
CELERY_RESULT_BACKEND = REDIS_URL
CELERY_RESULT_EXPIRES = 600
CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = CELERY_RESULT_ACCEPT_CONTENT = ["json"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULER = "celery.beat:Scheduler"  # in memory: the default one keeps a pickle file
CELERY_BEAT_SCHEDULE = {
    # what no worker took in time is not made up for: the next tick finds the same rows
    "start scheduled replays": {"task": "replay.tasks.start_scheduled", "schedule": 1.0, "options": {"expires": 5}},
    "forget old answers": {"task": "replay.tasks.forget_old_answers", "schedule": 600.0, "options": {"expires": 600}},
}

# The pipeline.
SYMBOL = env.symbol("SYMBOL", default="CLX5")
STREAMER_TCP_HOST = env.text("STREAMER_TCP_HOST", default="127.0.0.1")
STREAMER_TCP_PORT = env.port("STREAMER_TCP_PORT", default=9000)
STREAMER_RATE = env.integer("STREAMER_RATE", default=1000, low=1, high=1_000_000_000)
STREAMER_LOOP = env.flag("STREAMER_LOOP", False)
FEED_FRAMING = env.choice("FEED_FRAMING", "csv", ("csv", "dbn"))
GATEWAY_HOST = env.text("GATEWAY_HOST", default="127.0.0.1")
GATEWAY_PORT = env.port("GATEWAY_PORT", default=13000)
# What the engine connects to. Without a key of its own it has one that follows from SECRET_KEY.
FEED_PROTOCOL = env.choice("FEED_PROTOCOL", "live", ("live", "raw"))
FEED_HOST = env.text("FEED_HOST", default="127.0.0.1")
FEED_PORT = env.port("FEED_PORT", default=GATEWAY_PORT if FEED_PROTOCOL == "live" else STREAMER_TCP_PORT)
FEED_KEY = env.feed_key("FEED_KEY")
FEED_DATASET = env.dataset("FEED_DATASET", default="BATONIC.REPLAY")
FEED_SYMBOLS = env.symbols("FEED_SYMBOLS", default="ALL_SYMBOLS")
# The predecessor's control port: commands travel over Redis now. The names are accepted and read by nobody.
STREAMER_CTRL_PORT = env.port("STREAMER_CTRL_PORT", default=7000)
STREAMER_CTRL_URL = env.text("STREAMER_CTRL_URL")
WEB_HOST = env.text("WEB_HOST", default="127.0.0.1")
WEB_PORT = env.port("WEB_PORT", "API_PORT", "WS_PORT", "FRONTEND_PORT", default=8000)
WEB_PROCESSES = env.integer("WEB_PROCESSES", default=min(env.cores(), 4), low=1, high=64)
# Clients of /ws: the most of one web process, of a user and of an address there, and how long one may take nothing.
WS_MAX_CLIENTS = env.integer("WS_MAX_CLIENTS", default=2000, low=1, high=1_000_000)
WS_MAX_PER_USER = env.integer("WS_MAX_PER_USER", default=200, low=1, high=1_000_000)
WS_MAX_PER_ADDRESS = env.integer("WS_MAX_PER_ADDRESS", default=400, low=1, high=1_000_000)
WS_SLOW_CLOSE_S = env.integer("WS_SLOW_CLOSE_S", default=10, low=1, high=3600)
BOOK = env.choice("BOOK", "kernel", ("kernel", "reference"))
DEPTH = env.integer("DEPTH", default=50, low=1, high=200)
SNAPSHOT_EVERY = env.integer("SNAPSHOT_EVERY", default=1000, low=0, high=1_000_000_000)
SNAPSHOT_MS = env.integer("SNAPSHOT_MS", default=0, low=0, high=86_400_000)
MAX_MSGS = env.integer("MAX_MSGS", default=-1, low=-1, high=2**63 - 1)
PUSH_MS = env.integer("PUSH_MS", default=50, low=1, high=5000)
QUEUE_MB = env.integer("QUEUE_MB", default=64, low=1, high=65_536)
SPILL_MB = env.integer("SPILL_MB", default=1024, low=0, high=1_048_576)
# What several engines of one data folder must not share carries the name of its engine; the default one's does not.
ENGINE_NAME = env.name("ENGINE_NAME", default=DEFAULT_ENGINE)
_of_engine = "" if ENGINE_NAME == DEFAULT_ENGINE else f"-{ENGINE_NAME}"
SPILL_FOLDER = DATA_FOLDER / f"spill{_of_engine}"
FEED_ENABLED = env.flag("FEED_ENABLED", True)
FEED_PATH = env.path("FEED_PATH", DATA_FOLDER / f"snapshots_feed{_of_engine}.jsonl")
METRICS_HOST = env.text("METRICS_HOST", default="127.0.0.1")
METRICS_PORT = env.integer("METRICS_PORT", default=9464, low=0, high=65535)
OTEL_TRACES = env.flag("OTEL_TRACES", False)
BENCH_LOG_PATH = env.path("BENCH_LOG_PATH", DATA_FOLDER / "benchmarks.jsonl")
FINAL_BOOK_FOLDER = DATA_FOLDER / "final_books"
RECORDINGS_FOLDER = DATA_FOLDER / "recordings"
ALLOWED_RATES = (200, 1000, 10000, 50000, 500000)

# The site.
ROOT_URLCONF = "batonic_site.urls"
ASGI_APPLICATION = "batonic_site.asgi.application"
INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "axes",
    "csp",
    "ninja",  # serves its OpenAPI page from here instead of from a content network
    "channels",
    "batonic_site.apps.SiteConfig",
    "orderbook.apps.OrderbookConfig",
    "replay.apps.ReplayConfig",
    "history.apps.HistoryConfig",
    "engine_worker.apps.EngineWorkerConfig",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",  # deny by default
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",  # last: it answers a locked-out login
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
LANGUAGE_CODE = "en"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = DATA_FOLDER / "static"
WHITENOISE_USE_FINDERS = not any(STATIC_ROOT.glob("*"))  # without collectstatic: straight from the sources
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}

# Security: deny first.
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.words("CSRF_TRUSTED_ORIGINS")
HTTPS = env.flag("HTTPS", False)
BEHIND_PROXY = env.flag("BEHIND_PROXY", False)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_PROXY else None
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^readyz$"]  # asked by supervisors on the machine itself
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "connect-src": [SELF],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "live"
LOGOUT_REDIRECT_URL = "login"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True

LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
LOGGING_CONFIG = "batonic_site.logs.configure"
LOGGING = {"level": LOG_LEVEL}
