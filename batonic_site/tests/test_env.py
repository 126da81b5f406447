import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.checks import ERROR, run_checks
from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import conninfo_to_dict

from batonic_site import env
from batonic_site.settings import _database

PROJECT = Path(__file__).resolve().parents[2]


def test_an_empty_value_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("DEPTH", "")
    assert env.integer("DEPTH", default=50, low=1, high=200) == 50


def test_the_first_name_that_is_set_wins_over_its_aliases(monkeypatch):
    monkeypatch.setenv("WS_PORT", "8002")
    assert env.port("WEB_PORT", "WS_PORT", default=8000) == 8002
    monkeypatch.setenv("WEB_PORT", "8001")
    assert env.port("WEB_PORT", "WS_PORT", default=8000) == 8001


@pytest.mark.parametrize(("value", "meant"), [("1", True), ("Yes", True), ("on", True), ("0", False), ("FALSE", False)])
def test_switches_read_the_usual_words(monkeypatch, value, meant):
    monkeypatch.setenv("PUBLIC_READ", value)
    assert env.flag("PUBLIC_READ", default=not meant) is meant


@pytest.mark.parametrize(
    ("name", "value", "parse", "allowed"),
    [
        ("DEPTH", "201", lambda: env.integer("DEPTH", default=50, low=1, high=200), "a whole number from 1 to 200"),
        ("DEPTH", "5.0", lambda: env.integer("DEPTH", default=50, low=1, high=200), "a whole number from 1 to 200"),
        ("WS_PORT", "0", lambda: env.port("WEB_PORT", "WS_PORT", default=8000), "a whole number from 1 to 65535"),
        ("PUBLIC_READ", "maybe", lambda: env.flag("PUBLIC_READ", default=False), "1 or 0"),
        ("BOOK", "fast", lambda: env.choice("BOOK", "kernel", ("kernel", "reference")), "one of kernel, reference"),
        ("SECRET_KEY_FILE", "/nonexistent", lambda: env.secret("SECRET_KEY"), "a readable file"),
        ("FEED_DATASET", "TOO.LONG.BY.ONE.", lambda: env.dataset("FEED_DATASET", "X"), "a dataset: 1 to 15 printable"),
        ("FEED_SYMBOLS", "CLX5,A|B", lambda: env.symbols("FEED_SYMBOLS", "X"), "symbols separated by commas"),
        ("FEED_SYMBOLS", " , ", lambda: env.symbols("FEED_SYMBOLS", "X"), "symbols separated by commas"),
        ("FEED_SYMBOLS", "Ä", lambda: env.symbols("FEED_SYMBOLS", "X"), "symbols separated by commas"),
    ],
)
def test_a_wrong_value_is_refused_with_name_value_and_what_is_allowed(monkeypatch, name, value, parse, allowed):
    monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured) as error:
        parse()
    assert f"{name}={value!r} is not valid: expected {allowed}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "parse", "allowed"),
    [
        ("PG_CONNINFO", "hunter2", lambda: env.conninfo("PG_CONNINFO", default=""), "a libpq connection string"),
        ("PG_CONNINFO", "postgresql://u:hunter2@[x/db", lambda: env.conninfo("PG_CONNINFO", default=""), "a libpq"),
        ("REDIS_URL", ":hunter2@localhost:6379", lambda: env.redis_url("REDIS_URL", ""), "a URL that starts with"),
        ("FEED_KEY", "db-hunter2", lambda: env.feed_key("FEED_KEY"), "a key: 32 characters that start with db-"),
    ],
)
def test_a_wrong_secret_is_named_and_not_shown(monkeypatch, name, value, parse, allowed):
    monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured) as error:
        parse()
    assert f"{name} is not valid: expected {allowed}" in str(error.value)
    assert "hunter2" not in str(error.value) and error.value.__cause__ is None


def test_a_secret_can_come_from_a_file(monkeypatch, tmp_path):
    (tmp_path / "key").write_text("from a file\n")
    monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "key"))
    assert env.secret("SECRET_KEY") == "from a file"


def test_symbols_are_parted_by_commas_and_may_hold_spaces(monkeypatch):
    monkeypatch.setenv("FEED_SYMBOLS", "CLX5, ES Z5,")
    assert env.symbols("FEED_SYMBOLS", default="ALL_SYMBOLS") == ("CLX5", "ES Z5")


def test_the_feeds_key_can_come_from_a_file(monkeypatch, tmp_path):
    (tmp_path / "key").write_text("db-" + "k" * 29 + "\n")
    monkeypatch.setenv("FEED_KEY_FILE", str(tmp_path / "key"))
    assert env.feed_key("FEED_KEY") == "db-" + "k" * 29


def manage(tmp_path: Path, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a management command with these variables and nothing else of ours."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, str(PROJECT / "manage.py"), *words],
        env={**kept, "DATA_FOLDER": str(tmp_path / "var"), **variables},
        capture_output=True,
        text=True,
    )


def test_a_wrong_value_stops_the_process(tmp_path):
    run = manage(tmp_path, "check", STREAMER_RATE="fast")
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.endswith("STREAMER_RATE='fast' is not valid: expected a whole number from 1 to 1000000000.")


PRODUCTION = {
    "SECRET_KEY": "w7dQx2nV" * 7,
    "PG_CONNINFO": "host=db dbname=batonic user=batonic password=secret",
    "REDIS_URL": "redis://:secret@redis:6379/0",
    "ALLOWED_HOSTS": "batonic.example.com",
    "HTTPS": "1",
    "BEHIND_PROXY": "1",
}


def test_a_production_environment_passes_the_deployment_checks_without_a_warning(tmp_path):
    run = manage(tmp_path, "check", "--deploy", "--fail-level", "WARNING", **PRODUCTION)
    assert run.returncode == 0, run.stderr
    assert "no issues (0 silenced)" in run.stdout


def identifiers() -> set[str | None]:
    return {message.id for message in run_checks(include_deployment_checks=True)}


@pytest.mark.parametrize(
    ("change", "identifier"),
    [
        ({"PUBLIC_READ": True}, "batonic.W001"),
        ({"HTTPS": True}, "batonic.W003"),
        ({"FEED_PORT": 9001}, "batonic.W004"),
        ({"SECRET_KEY": "short"}, "security.W009"),
    ],
)
def test_a_doubtful_setting_is_warned_about(settings, change, identifier):
    assert identifier not in identifiers()
    for name, value in change.items():
        setattr(settings, name, value)
    assert identifier in identifiers()


def test_a_database_without_a_password_is_warned_about(settings, monkeypatch):
    monkeypatch.setitem(settings.DATABASES["default"], "PASSWORD", "")
    assert "batonic.W002" in identifiers()


def test_another_feed_than_ours_may_have_any_port(settings):
    settings.FEED_HOST, settings.FEED_PORT = "feed.example.com", 9001
    assert "batonic.W004" not in identifiers()


@pytest.mark.parametrize(("protocol", "port"), [("live", "GATEWAY_PORT"), ("raw", "STREAMER_TCP_PORT")])
def test_the_port_of_our_own_feed_follows_the_protocol(tmp_path, protocol, port):
    asked = "from django.conf import settings; print(settings.FEED_PORT)"
    run = manage(tmp_path, *("shell", "--no-imports", "-c", asked), FEED_PROTOCOL=protocol, **{port: "12345"})
    assert run.stdout == "12345\n", run.stderr


def test_a_gateway_of_others_needs_a_key_unless_it_has_our_secret(settings):
    settings.FEED_PROTOCOL, settings.FEED_HOST, settings.FEED_KEY = "live", "glbx-mdp3.example.com", ""
    [found] = [message for message in run_checks() if message.id == "batonic.W005"]
    assert found.level < ERROR, "it may share our SECRET_KEY"
    assert "FEED_KEY" in found.hint
    settings.FEED_KEY = "db-" + "k" * 29
    assert "batonic.W005" not in identifiers()
    settings.FEED_PROTOCOL, settings.FEED_KEY = "raw", ""
    assert "batonic.W005" not in identifiers()


@pytest.mark.parametrize(
    "conninfo",
    [
        "host=db port=6432 dbname=market user=me password='a b' sslmode=require",
        "postgresql://me:a%20b@db:6432/market?sslmode=require",
    ],
)
def test_each_form_of_a_connection_string_gives_the_same_connection(conninfo):
    database = _database(conninfo)
    found = [database[name] for name in ("HOST", "PORT", "NAME", "USER", "PASSWORD")]
    assert found == ["db", "6432", "market", "me", "a b"]
    assert database["OPTIONS"] == {"connect_timeout": 5, "sslmode": "require"}


def test_the_parts_of_a_connection_can_be_named_one_by_one(tmp_path):
    run = manage(
        tmp_path,
        *("shell", "--no-imports", "-c", "from django.conf import settings; print(settings.PG_CONNINFO)"),
        POSTGRES_HOST="db",
        POSTGRES_PORT="6432",
        POSTGRES_DB="market",
        POSTGRES_USER="me",
        POSTGRES_PASSWORD="a b",
    )
    expected = {"host": "db", "port": "6432", "dbname": "market", "user": "me", "password": "a b"}
    assert conninfo_to_dict(run.stdout) == expected, run.stderr


@pytest.mark.parametrize("name", ["East", "a b", "../x", "x" * 33, "-a", "ä"])
def test_a_name_that_is_not_safe_in_files_and_keys_is_refused(monkeypatch, name):
    monkeypatch.setenv("ENGINE_NAME", name)
    with pytest.raises(ImproperlyConfigured, match="ENGINE_NAME"):
        env.name("ENGINE_NAME", "engine")


def test_a_name_may_be_short_and_plain(monkeypatch):
    monkeypatch.setenv("ENGINE_NAME", "west-2_b")
    assert (env.name("ENGINE_NAME", "engine"), env.name("NOT_SET_AT_ALL", "engine")) == ("west-2_b", "engine")
