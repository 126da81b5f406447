"""The files around the code: containers, Procfile, locks, example environment; checked without a network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from django.core.management import CommandError, call_command

from batonic_site.management.commands.checklock import stale

PROJECT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PROCFILE = {
    line.split(":")[0]: line.split(": ")[1]
    for line in (PROJECT / "Procfile").read_text().splitlines()
    if line and not line.startswith("#")
}


@pytest.fixture(scope="module")
def compose() -> dict[str, dict[str, dict[str, object]]]:
    parsed: dict[str, dict[str, dict[str, object]]] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
    return parsed


def check_compose(path: Path) -> "subprocess.CompletedProcess[str]":
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_compose_file_follows_the_schema():
    run = check_compose(PROJECT / "docker-compose.yml")
    assert run.returncode == 0, run.stdout


def test_the_schema_would_catch_a_misspelt_key(tmp_path):
    broken = tmp_path / "docker-compose.yml"
    broken.write_text((PROJECT / "docker-compose.yml").read_text().replace("cap_drop:", "cap_drops:"))
    assert check_compose(broken).returncode == 1


def test_the_dockerfile_is_clean():
    run = subprocess.run([BIN / "hadolint", PROJECT / "Dockerfile"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_the_image_is_pinned_in_two_stages_and_runs_as_nobody_special():
    text = (PROJECT / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.M)
    assert len(bases) == 2 and set(bases) == {"python:3.11.14-slim-bookworm"}
    assert re.search(r"^USER 10001:10001$", text, re.M)
    assert "--require-hashes" in text


def test_in_a_container_every_port_listens_to_the_outside(compose):
    everywhere = "0.0.0.0"  # noqa: S104  (compared with, not bound)
    image = dict(re.findall(r"^ +(\w+_HOST)=(\S+)", (PROJECT / "Dockerfile").read_text(), re.M))
    assert image == dict.fromkeys(("WEB_HOST", "STREAMER_TCP_HOST", "GATEWAY_HOST"), everywhere)
    for process in PROCFILE:
        assert image.items() <= compose["services"][process]["environment"].items(), process


def test_containers_and_terminal_run_the_same_processes(compose):
    services = compose["services"]
    assert set(services) == set(PROCFILE) | {"db", "redis", "prepare", "proxy"}
    for name, line in PROCFILE.items():
        assert services[name]["command"] == re.sub(r" --loglevel \S+", "", line).split(), name


def test_every_long_running_service_is_hardened_and_has_a_health_check(compose):
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert "healthcheck" in service, name
        image = str(service["image"])
        assert image == "batonic" or ":" in image, f"{name} uses an unpinned image"


def test_the_compose_file_waits_for_servers_and_preparation(compose):
    for name in PROCFILE:
        conditions = {needed: wait["condition"] for needed, wait in compose["services"][name]["depends_on"].items()}
        assert conditions == {
            "db": "service_healthy",
            "redis": "service_healthy",
            "prepare": "service_completed_successfully",
        }, name


def test_the_proxy_alone_is_published_for_the_web_and_is_believed(compose):
    web, proxy = compose["services"]["web"], compose["services"]["proxy"]
    assert "ports" not in web and web["deploy"] == {"replicas": "${WEB_PROCESSES:-2}"}
    assert web["environment"]["BEHIND_PROXY"] == "1"
    assert proxy["volumes"] == ["./batonic_site/services/nginx.conf:/etc/nginx/nginx.conf:ro"]
    config = (PROJECT / "batonic_site" / "services" / "nginx.conf").read_text()
    assert "server web:8000 " in config and "listen 8080;" in config
    assert "least_conn;" in config and proxy["ports"][0].endswith(":8080")


def test_no_secret_stands_in_the_container_files():
    text = (PROJECT / "docker-compose.yml").read_text()
    for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "SECRET_KEY"):
        assert f"${{{name}:?" in text
    example = (PROJECT / ".env.example").read_text()
    assert re.findall(r"^#?\w*(?:PASSWORD|SECRET_KEY|SECRET_KEY_FILE|PASSWORD_FILE)=(.+)$", example, re.M) == []


def test_the_example_environment_names_exactly_what_is_read():
    settings = (PROJECT / "batonic_site" / "settings.py").read_text()
    read = set()
    for kind, arguments in re.findall(r"env\.(\w+)\(((?:\s*\"[A-Z_]+\"\s*,?)+)", settings):
        names = re.findall(r'"([A-Z_]+)"', arguments)
        if kind == "choice":
            names = names[:1]  # the second word is the default
        read |= set(names)
        if kind in ("secret", "feed_key"):
            read |= {f"{name}_FILE" for name in names}
    composed = set(re.findall(r"\$\{([A-Z_]+)", (PROJECT / "docker-compose.yml").read_text()))
    named = set(re.findall(r"^#?([A-Z][A-Z_]+)=", (PROJECT / ".env.example").read_text(), re.M))
    assert named == read | composed


def test_the_locks_answer_to_pyproject():
    call_command("checklock")


def test_a_lock_that_lacks_something_is_named(tmp_path):
    lock = tmp_path / "requirements.txt"
    lock.write_text("django==5.1.0 \\\n    --hash=sha256:00\nChannels-Redis==4.3.0\n")
    assert stale(lock, ["django>=5.2.19,<5.3", "channels_redis>=4.3.0", "numpy>=2"]) == [
        "requirements.txt: expected django>=5.2.19,<5.3, found 5.1.0",
        "requirements.txt: expected numpy>=2, found nothing",
    ]


def test_a_stale_lock_stops_the_check_with_the_way_out(settings, tmp_path):
    for name in ("requirements.txt", "requirements-dev.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "pyproject.toml").write_text((PROJECT / "pyproject.toml").read_text())
    settings.BASE_DIR = tmp_path
    with pytest.raises(CommandError, match=r"found nothing[\s\S]*Run: make lock"):
        call_command("checklock")


def committed_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=PROJECT, capture_output=True, text=True
    )
    if listed.returncode:
        return [path for path in PROJECT.iterdir() if path.is_file()]  # an unpacked archive
    return [path for name in listed.stdout.splitlines() if (path := PROJECT / name).is_file()]


def test_every_locked_package_has_a_hash_and_no_file_names_a_registry():
    for name in ("requirements.txt", "requirements-dev.txt"):
        lock = (PROJECT / name).read_text()
        entries = re.split(r"\n(?=[a-z0-9])", lock)[1:]
        assert entries and all("--hash=sha256:" in entry for entry in entries)
        assert "://" not in lock
    # Written in two parts, so that this file does not name them either.
    hosts = [first + last for first, last in ((b"py", b"pi.org"), (b"python", b"hosted.org"), (b"registry.", b"npmjs"))]
    indexed = re.compile(rb"index-url *[=:]? *https?:", re.I)
    for path in committed_files():
        text = path.read_bytes().lower()
        assert not indexed.search(text) and not any(host in text for host in hosts), path


def test_the_ci_script_ends_with_the_tests():
    text = (PROJECT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in text
    assert text.strip().splitlines()[-1] == "exec make --no-print-directory test"
    assert subprocess.run(["bash", "-n", PROJECT / ".ci" / "run"]).returncode == 0
