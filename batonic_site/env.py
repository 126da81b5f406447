"""Strict parsers for the environment: a wrong value stops the process with its name, the value and what is allowed.

An empty value counts as not set, because compose files write ``NAME=${NAME:-}``.
"""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

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
    try:
        number = int(value)
    except ValueError:
        raise _wrong(name, value, allowed) from None
    if not low <= number <= high:
        raise _wrong(name, value, allowed)
    return number


def port(*names: str, default: int) -> int:
    """Return a TCP port."""
    return integer(*names, default=default, low=1, high=65535)


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
