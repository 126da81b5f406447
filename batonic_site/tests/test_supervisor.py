import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batonic_site.services.process import Program, ServiceError
from batonic_site.services.supervisor import FIRST_DELAY_S, LAST_DELAY_S, Supervisor, read_procfile

PROJECT = Path(__file__).resolve().parents[2]

# Says in a file when it is told to stop, and takes its time about it.
POLITE = """
trap 'echo "$0" >> "$1"; exit 0' TERM
echo ready
while :; do sleep 0.05; done
"""
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(said: list[str]) -> Iterator[Supervisor]:
    supervisor = Supervisor(said.append, clients_stop_s=3, servers_stop_s=3)
    yield supervisor
    supervisor.hasten = lambda: True
    supervisor.stop()


def shell(tmp_path: Path, name: str, script: str) -> Program:
    command = ["sh", "-c", script, name, str(tmp_path / "order")]
    return Program(name, command, tmp_path / f"{name}.log", environment=dict(os.environ))


def ready(program: Program) -> bool:
    return "ready" in program.log_tail()


def test_a_killed_child_comes_back_by_itself(supervisor, said, tmp_path, wait_for):
    first = supervisor.start_client(shell(tmp_path, "engine", STUBBORN))
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: supervisor.tend() and supervisor.clients[0].restarts == 1)
    assert supervisor.clients[0].process.pid != first.pid
    assert supervisor.failing() == []
    assert len(said) == 1 and said[0].startswith("engine ended (by SIGKILL); it starts again in 0.2 s")


def test_a_child_that_keeps_failing_is_restarted_ever_more_slowly(said, tmp_path):
    now = [0.0]
    supervisor = Supervisor(said.append, clock=lambda: now[0])
    supervisor.start_client(shell(tmp_path, "broken", "exit 3"))
    child = supervisor.clients[0]
    delays = []
    for _ in range(8):
        child.process.wait()
        delays.append(child.delay_s)
        assert supervisor.tend()
        now[0] = child.restart_at - 0.01
        assert not supervisor.tend(), "too early"
        now[0] = child.restart_at
        assert supervisor.tend()
    assert delays[:3] == [FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S]
    assert delays[-1] == LAST_DELAY_S
    assert "status 3" in said[0]
    now[0] += 1000  # it ran well for a long time
    child.process.wait()
    supervisor.tend()
    assert child.restart_at == now[0] + FIRST_DELAY_S


def test_clients_are_stopped_before_the_servers_they_need(supervisor, tmp_path, wait_for):
    programs = {name: shell(tmp_path, name, POLITE) for name in ("postgres", "valkey", "engine", "web")}
    for name in ("postgres", "valkey"):
        supervisor.start_server(programs[name])
    for name in ("engine", "web"):
        supervisor.start_client(programs[name])
    wait_for(lambda: all(ready(program) for program in programs.values()))
    assert supervisor.stop() == []
    order = (tmp_path / "order").read_text().split()
    assert sorted(order[:2]) == ["engine", "web"] and sorted(order[2:]) == ["postgres", "valkey"]


def test_a_child_that_ignores_sigterm_is_killed_and_named(supervisor, tmp_path, wait_for):
    supervisor.clients_stop_s = 0.3
    program = shell(tmp_path, "deaf", STUBBORN)
    process = supervisor.start_client(program)
    wait_for(lambda: ready(program))
    assert supervisor.stop() == ["deaf"]
    assert process.returncode == -signal.SIGKILL


def test_a_second_request_to_stop_ends_the_patience(supervisor, tmp_path, wait_for):
    supervisor.clients_stop_s = 3600
    supervisor.hasten = lambda: True
    program = shell(tmp_path, "deaf", STUBBORN)
    supervisor.start_client(program)
    server = shell(
        tmp_path, "server", "trap 'sleep 0.3; echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    )
    supervisor.start_server(server)
    wait_for(lambda: ready(program) and ready(server))
    assert supervisor.stop() == ["deaf"], "but a server may still write what it holds"
    assert "saved" in server.log_tail()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_children_end_with_a_killed_supervisor(tmp_path, wait_for):
    script = """
import sys, time
from pathlib import Path
from batonic_site.services.process import Program
print(Program("child", ["sleep", "60"], Path(sys.argv[1])).start().pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "log")], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text())


def test_a_program_that_ends_while_it_is_waited_for_shows_the_end_of_its_log(tmp_path):
    program = shell(tmp_path, "broken", "echo the disk is on fire; exit 5")
    with pytest.raises(ServiceError, match=r"broken ended with status 5:\nthe disk is on fire"):
        program.wait_until(lambda: False, program.start(), timeout_s=5)


def test_a_program_that_is_never_ready_is_ended(tmp_path, wait_for):
    program = shell(tmp_path, "slow", "sleep 60")
    process = program.start()
    with pytest.raises(ServiceError, match="slow was not ready after 0 s"):
        program.wait_until(lambda: False, process, timeout_s=0.1)
    assert process.poll() is not None


def test_a_log_that_grew_large_is_put_aside(tmp_path):
    log = tmp_path / "engine.log"
    with log.open("wb") as file:
        file.truncate(21_000_000)
    Program("engine", ["echo", "new"], log, environment={"PATH": os.environ["PATH"]}).start().wait()
    assert log.read_text() == "new\n"
    assert (tmp_path / "engine.log.1").stat().st_size == 21_000_000


def test_a_procfile_gives_programs_with_their_variables_filled_in(tmp_path):
    path = tmp_path / "Procfile"
    path.write_text(
        "# comment: not a process\n\nweb: python manage.py runweb\nworker: celery --loglevel $LOG_LEVEL 'a b'\n"
    )
    web, worker = read_procfile(path, tmp_path / "log", {"LOG_LEVEL": "INFO"})
    assert (web.name, web.command) == ("web", [sys.executable, "manage.py", "runweb"])
    assert worker.command == ["celery", "--loglevel", "INFO", "a b"]
    assert worker.log_path == tmp_path / "log" / "worker.log"


def test_a_procfile_with_an_unknown_variable_says_which(tmp_path):
    path = tmp_path / "Procfile"
    path.write_text("web: python -p $PORT\n")
    with pytest.raises(ServiceError, match="web needs the variable 'PORT', which is not set"):
        read_procfile(path, tmp_path, {})


def test_tending_healthy_children_does_nothing(supervisor, tmp_path):
    supervisor.start_client(shell(tmp_path, "fine", "sleep 60"))
    time.sleep(0.05)
    assert not supervisor.tend()
