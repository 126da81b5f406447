"""Several daphne behind one socket: even, restarted, never refused. Real processes, no database."""

import gc
import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from batonic_site.management.commands import runweb
from batonic_site.services.listeners import web_pids
from batonic_site.services.process import Program, ServiceError
from batonic_site.services.supervisor import Supervisor
from batonic_site.services.web import ACCEPTING, allow_many_sockets, listening_socket, web_programs
from batonic_site.tests.fixtures import MANAGE


@pytest.fixture
def door(free_port: Callable[[], int]) -> Iterator[socket.socket]:
    with listening_socket("127.0.0.1", free_port()) as listener:
        yield listener


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    supervisor = Supervisor(lambda text: None, clients_stop_s=5)
    yield supervisor
    supervisor.stop()


def programs(door: socket.socket, folder: Path, count: int) -> list[Program]:
    environment = os.environ | {"DATA_FOLDER": str(folder), "LOG_LEVEL": "INFO", "WEB_PORT": str(port_of(door))}
    web = Program("web", [sys.executable, str(MANAGE), "runweb"], folder / "log" / "web.log", environment=environment)
    return web_programs(web, count, door)


def port_of(door: socket.socket) -> int:
    port: int = door.getsockname()[1]
    return port


def accepts(program: Program, times: int = 1) -> bool:
    return program.log_tail(lines=1000).count(ACCEPTING) >= times


def get(port: int) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", "/livez")
        return connection.getresponse().status


def sockets(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_two_processes_share_one_socket_and_survive_each_other(supervisor, door, tmp_path, wait_for):
    webs = programs(door, tmp_path, 2)
    assert [web.name for web in webs] == ["web.1", "web.2"]
    assert {web.log_path for web in webs} == {tmp_path / "log" / "web.1.log", tmp_path / "log" / "web.2.log"}
    first, second = (supervisor.start_client(web) for web in webs)
    wait_for(lambda: all(accepts(web) for web in webs), 30, "two web processes")
    assert get(port_of(door)) == 200
    if sys.platform == "linux":
        assert web_pids(port_of(door)) == tuple(sorted((first.pid, second.pid)))
        idle = sockets(first.pid), sockets(second.pid)
        with ExitStack() as clients:

            def one_more() -> bool:
                clients.enter_context(socket.create_connection(("127.0.0.1", port_of(door)), 5))
                return sockets(first.pid) > idle[0] and sockets(second.pid) > idle[1]

            wait_for(one_more, 20, "both of them to accept")

    os.kill(first.pid, signal.SIGKILL)
    first.wait(5)  # who comes now meets the other one
    assert [get(port_of(door)) for _ in range(20)] == [200] * 20
    second.send_signal(signal.SIGTERM)  # in good order: it must not close the door behind the first
    second.wait(10)
    with closing(http.client.HTTPConnection("127.0.0.1", port_of(door), timeout=20)) as patient:
        patient.request("GET", "/livez")  # nobody is there: the kernel keeps it
        wait_for(lambda: supervisor.tend() and all(child.restarts for child in supervisor.clients), 10, "restarts")
        assert patient.getresponse().status == 200
    assert supervisor.stop() == [], "both end in good order"


def test_one_process_keeps_its_plain_name(door, tmp_path):
    (web,) = programs(door, tmp_path, 1)
    assert (web.name, web.log_path) == ("web", tmp_path / "log" / "web.log")


def test_a_port_in_use_is_told_with_its_setting(door):
    with pytest.raises(ServiceError, match=f"Cannot listen on WEB_HOST=127.0.0.1 WEB_PORT={port_of(door)}: .*in use"):
        listening_socket("127.0.0.1", port_of(door))


def test_a_host_that_is_none_is_told(free_port):
    with pytest.raises(ServiceError, match="Cannot listen on WEB_HOST=no.such.host.invalid"):
        listening_socket("no.such.host.invalid", free_port())


def test_a_lone_runweb_says_why_it_cannot_listen(door, tmp_path):
    (web,) = programs(door, tmp_path, 1)
    alone = subprocess.run(web.command[:-2], env=web.environment, capture_output=True, text=True)
    assert alone.returncode == 1
    assert f"WEB_HOST=127.0.0.1 WEB_PORT={port_of(door)}" in alone.stderr


def test_a_web_process_takes_more_sockets_than_it_is_given_at_first():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(os.listdir("/dev/fd")) + 100
    if hard != resource.RLIM_INFINITY and hard <= few:
        pytest.skip(f"this machine allows {hard} open files and no more")
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        allow_many_sockets()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > few
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_every_address_of_a_machine_takes_both_protocols(free_port):
    port = free_port()
    try:
        listener = listening_socket("::", port)
    except ServiceError:
        pytest.skip("this machine has no IPv6")
    with listener, socket.create_connection(("127.0.0.1", port), 5):
        pass


def test_no_connection_ends_by_its_age(monkeypatch: pytest.MonkeyPatch, door: socket.socket) -> None:
    made = []
    monkeypatch.setattr(runweb.Server, "run", lambda server: made.append(server))
    with pytest.raises(CommandError, match="Cannot accept"):  # it did not run
        call_command("runweb", socket=os.dup(door.fileno()))
    gc.unfreeze()
    assert made[0].websocket_timeout < 0
