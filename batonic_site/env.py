"""Strict parsers for the environment: a wrong value stops the process with its name, the value and what is allowed.

An empty value counts as not set, because compose files write ``NAME=${NAME:-}``.
"""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from replay.feed.cram import KEY_LENGTH, PREFIX, is_key

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")  # int() would also take 1_000 and other scripts' digits
_SYMBOL = re.compile(r"[!-~]+( [!-~]+)*")
_MAX_SYMBOL = 71
_SUBSCRIBED = re.compile(r"[!-{}~]+( [!-{}~]+)*")  # a bar would end the value on the wire
_DATASET = re.compile(r"[!-{}~]{1,15}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def text(*names: str, default: str = "") -> str:
    """Return the first name that is set; the later ones are aliases of the first."""
    return next((os.environ[name] for name in names if os.environ.get(name)), default)


def flag(name: str, default: bool) -> bool:
    """Return a switch: 1, true, yes, on, or 0, false, no, off."""
    value = text(name)
    if not value:
        return default
    if value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise _wrong(name, value, "1 or 0 (also true/false, yes/no, on/off)")


def integer(*names: str, default: int, low: int, high: int) -> int:
    """Return a whole number within [low, high]."""
    name = next((name for name in names if os.environ.get(name)), names[0])
    value = text(name, default=str(default))
    allowed = f"a whole number from {low} to {high}"
    if not _INTEGER.fullmatch(value) or not low <= int(value) <= high:
        raise _wrong(name, value, allowed)
    return int(value)


def port(*names: str, default: int) -> int:
    """Return a TCP port."""
    return integer(*names, default=default, low=1, high=65535)


def cores() -> int:
    """Return how many processors this process may use: a container's share may be less than the machine."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def choice(name: str, default: str, allowed: tuple[str, ...]) -> str:
    """Return one of the allowed words."""
    value = text(name, default=default)
    if value not in allowed:
        raise _wrong(name, value, "one of " + ", ".join(allowed))
    return value


def words(name: str, default: str = "") -> list[str]:
    """Return a comma-separated list without blanks."""
    return [word.strip() for word in text(name, default=default).split(",") if word.strip()]


def path(name: str, default: Path) -> Path:
    """Return an absolute path; a relative one is taken from the working directory."""
    return Path(text(name, default=str(default))).expanduser().resolve()


def folder(name: str, default: Path, *, make: bool = False) -> Path:
    """Return the path of a folder; ``make`` makes it, for its owner only."""
    found = path(name, default)
    try:
        if make:
            found.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _wrong(name, str(found), f"a folder that can be made ({error.strerror})") from None
    if found.exists() and not found.is_dir():
        raise _wrong(name, str(found), "a folder")
    return found


def symbol(name: str, default: str) -> str:
    """Return an instrument's symbol: printable ASCII, at most 71 characters."""
    value = text(name, default=default)
    if len(value) > _MAX_SYMBOL or not _SYMBOL.fullmatch(value):
        raise _wrong(name, value, f"a symbol: at most {_MAX_SYMBOL} printable ASCII characters")
    return value


def name(name: str, default: str) -> str:
    """Return a short name that is safe in file names and keys."""
    value = text(name, default=default)
    if not _NAME.fullmatch(value):
        raise _wrong(name, value, "a name: 1 to 32 of a-z, 0-9, - and _, the first a letter or digit")
    return value


def symbols(name: str, default: str) -> tuple[str, ...]:
    """Return a comma-separated list of symbols, as a feed is asked for them."""
    found = tuple(words(name, default))
    if not found or not all(len(symbol) <= _MAX_SYMBOL and _SUBSCRIBED.fullmatch(symbol) for symbol in found):
        allowed = f"symbols separated by commas, each at most {_MAX_SYMBOL} printable ASCII characters without |"
        raise _wrong(name, text(name, default=default), allowed)
    return found


def dataset(name: str, default: str) -> str:
    """Return the code of a dataset, as a feed is asked for it."""
    value = text(name, default=default)
    if not _DATASET.fullmatch(value):
        raise _wrong(name, value, "a dataset: 1 to 15 printable ASCII characters without | and space")
    return value


def feed_key(name: str) -> str:
    """Return a key of the live protocol, given as a secret is; empty when there is none."""
    value = secret(name)
    if value and not is_key(value):
        raise _wrong_secret(name, f"a key: {KEY_LENGTH} characters that start with {PREFIX}")
    return value


def conninfo(*names: str, default: str) -> str:
    """Return a libpq connection string or URL. The value is not shown when it is wrong: it may hold a password."""
    name = next((name for name in names if os.environ.get(name)), "")
    if not name:
        return default
    try:
        conninfo_to_dict(os.environ[name])
    except ProgrammingError:
        raise _wrong_secret(name, "a libpq connection string or a postgresql:// URL") from None
    return os.environ[name]


def redis_url(name: str, default: str) -> str:
    """Return the URL of a Redis; not shown when it is wrong, as above."""
    value = text(name, default=default)
    if urlsplit(value).scheme not in ("redis", "rediss"):
        raise _wrong_secret(name, "a URL that starts with redis:// or rediss://")
    return value


def secret(name: str) -> str:
    """Return a secret from NAME or from the file that NAME_FILE points to; empty when neither is set."""
    file_name = text(f"{name}_FILE")
    if not file_name:
        return text(name)
    try:
        return Path(file_name).read_text().strip()
    except OSError as error:
        raise _wrong(f"{name}_FILE", file_name, "a readable file") from error


def _wrong(name: str, value: str, allowed: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{name}={value!r} is not valid: expected {allowed}.")


def _wrong_secret(name: str, allowed: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{name} is not valid: expected {allowed}; what was found is not shown.")
