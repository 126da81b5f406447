"""The whole way as processes, on servers of its own: PostgreSQL, Redis, a streamer, and an engine behind a proxy.

What is looked at is what an operator sees: the table, the feed file, the final books, the live books in Redis, and
what the engine says of itself.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgpack
import psycopg
from django.core.management import call_command
from django.db import connection

from batonic_site.services.process import Program, free_port, kill_group, stop
from batonic_site.services.valkey import connect
from batonic_site.tests.fixtures import MANAGE, child_environment
from engine_worker.tests.proxy import TcpProxy
from engine_worker.tests.scrape import Scrape, probe, scrape
from engine_worker.tests.servers import PostgresServer, RedisServer
from history.models import Snapshot
from orderbook.live import BOOK_KEY
from replay import driving
from replay.models import Dataset
from replay.simulator import instrument_ids, simulate, write_session
from replay.streamer.messages import Pace
from replay.streamer.remote import StreamerRemote
from replay.tests.requests import run_request

SYMBOLS: Final = ["CLX5", "ESZ5"]
SOON: Final[Pace] = {"records_per_s": 30_000}
WAIT_S: Final = 20.0
END_S: Final = 90.0
START_S: Final = 90.0
"""On a clean clone the first engine compiles its kernels."""

_OF_ITS_OWN: Final = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
_MOUNT: Final = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'
Output = Literal["table", "feed file", "live book"]
_SOME: Final[dict[Output, int]] = {"table": 1000, "feed file": 500_000, "live book": 500}
_COLUMNS: Final = ", ".join(field.name for field in Snapshot._meta.fields if field.name != "id")


class Outcome(NamedTuple):
    """What a replay has left behind, without what differs from run to run."""

    rows: list[tuple[Any, ...]]
    lines: list[dict[str, Any]]
    final_books: dict[str, bytes]


class Rig:
    """Servers and processes that live through one fault after the other, as they must in production."""

    def __init__(self, folder: Path, records: int, disk_mb: int, **env: str) -> None:
        """Make a recording and start the servers; ``env`` is the engine's, ``disk_mb`` the disk of its feed file."""
        self.folder, self.feed_folder = folder, folder / "feed"
        self.feed_folder.mkdir()
        self.recording = folder / "made.dbn"
        write_session(self.recording, simulate(records, SYMBOLS, 1), instrument_ids(SYMBOLS))
        self.postgres, self.redis = PostgresServer(folder / "servers"), RedisServer(folder / "servers")
        self.remote, self.client = StreamerRemote(self.redis.url), connect(self.redis.url)
        self.metrics_port = free_port()
        self._env = child_environment(folder) | {"PG_CONNINFO": self.postgres.conninfo, "REDIS_URL": self.redis.url}
        self.proxy = TcpProxy("127.0.0.1", int(self._env["GATEWAY_PORT"]), free_port())
        self._engine_env = env | {
            "FEED_PORT": str(self.proxy.port),
            "FEED_PATH": str(self.feed_folder / "snapshots_feed.jsonl"),
            "METRICS_PORT": str(self.metrics_port),
        }
        self._own_disk = [*_OF_ITS_OWN, _MOUNT, "sh", f"size={disk_mb}m", str(self.feed_folder)]
        self.has_own_disk = not subprocess.run([*self._own_disk, "true"], capture_output=True).returncode
        self._started: list[subprocess.Popen[bytes]] = []
        self._run_before = ""

    def start(self) -> None:
        """Start the streamer and the engine. Needs ``default_database``, here and later."""
        call_command("migrate", verbosity=0)
        self.dataset = Dataset.objects.create(name="made.dbn", path=str(self.recording), state="ready")
        self.proxy.up()
        self._spawn("runstreamer", self._env)
        self.engine = self._spawn(
            "runengine", self._env | self._engine_env, self._own_disk if self.has_own_disk else []
        )
        self.wait_for(self._is_waiting, "the first connection", START_S)

    def close(self) -> None:
        for process in self._started:
            process.terminate()
        for process in self._started:
            stop(process, signal.SIGTERM, timeout_s=5)
            kill_group(process)
        self.proxy.down()
        self.remote.close()
        self.client.close()
        self.redis.stop()
        self.postgres.stop()

    def wait_for(self, condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
        """Return the value of a condition once it holds; the processes must live."""
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            for process in self._started:
                assert process.poll() is None, self.log()
            assert time.monotonic() < deadline, f"{what} did not hold within {timeout_s:g} s\n{self.log()}"
            time.sleep(0.01)
        return value

    def log(self) -> str:
        """Return the end of what the processes have logged."""
        return "\n".join(
            line for path in (self.folder / "log").glob("*.log") for line in path.read_text().splitlines()[-15:]
        )

    def replay(self, pace: Pace) -> None:
        """Start a replay behind an empty history, once the engine waits for one."""
        self.wait_for(self._is_waiting, "the engine's connection")
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE history_snapshot")
        for path in (self.feed_file, self.benchmarks, *self.final_books()):
            path.unlink(missing_ok=True)
        self._run_before = self.live_book().get("run_id", self._run_before)
        assert driving.start(run_request(self.dataset, pace), self.remote)["state"] == "REPLAYING"
        connection.close()  # its server is about to be killed

    def hurry(self) -> None:
        """Let the replay, which must not be over, come to its end soon."""
        assert self.wait_for(self.remote.status, "the streamer's status")["state"] == "REPLAYING"
        self.remote.call("pace", {"pace": SOON}, timeout_s=WAIT_S / 2)

    def outcome(self, snapshots: int) -> Outcome:
        """Return what a replay leaves behind, once so many snapshots are in every store."""
        self.wait_for(self.is_over, "the end of the replay", END_S)
        self.wait_for(lambda: self.rows_stored() >= snapshots, f"{snapshots} rows")
        self.wait_for(lambda: self.lines_written() >= snapshots, f"{snapshots} lines")
        with psycopg.connect(self.postgres.conninfo) as postgres:
            rows = postgres.execute(f"SELECT {_COLUMNS} FROM history_snapshot ORDER BY symbol, ts_event, sequence")
            return Outcome(rows.fetchall(), self.lines(), {path.name: path.read_bytes() for path in self.final_books()})

    def is_over(self) -> bool:
        """Say whether the engine has ended the replay: its line is the last thing that it writes of one."""
        return self.benchmarks.exists() and self.benchmarks.stat().st_size > 0

    def snapshots(self) -> int:
        """Return how many snapshots the replay that is over had."""
        self.wait_for(self.is_over, "the end of the replay", END_S)
        [line] = self.benchmarks.read_text().splitlines()
        return json.loads(line)["snapshots"]

    def rows_stored(self) -> int:
        with psycopg.connect(self.postgres.conninfo) as postgres:
            return postgres.execute("SELECT count(*) FROM history_snapshot").fetchone()[0]

    def lines_written(self) -> int:
        return self.feed_file.read_bytes().count(b"\n") if self.feed_file.exists() else 0

    def goes_on(self, *outputs: Output, times: int = 1) -> None:
        """Wait until outputs have taken some more than they have now: a tenth of a second's worth, so many times."""
        enough = {output: self.size(output) + _SOME[output] * times for output in outputs}
        for output in outputs:
            self.wait_for(lambda output=output: self.size(output) >= enough[output], f"the {output} going on")

    def size(self, output: Output) -> int:
        """Return how much an output has taken: rows, bytes, records."""
        match output:
            case "table":
                return self.rows_stored()
            case "feed file":
                return self.feed_file.stat().st_size if self.feed_file.exists() else 0
            case "live book":
                return self.live_book().get("records", 0)

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Fill the disk of the feed file, and make room again at the end."""
        ballast = self.disk / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        try:
            yield
        finally:
            ballast.unlink()

    def lines(self) -> list[dict[str, Any]]:
        """Return the feed file, whole lines only, without what names the run."""
        text = self.feed_file.read_text() if self.feed_file.exists() else ""
        return [{**json.loads(line), "run_id": ""} for line in text.splitlines()]

    @property
    def feed_file(self) -> Path:
        return self.disk / "snapshots_feed.jsonl"

    @property
    def disk(self) -> Path:
        """The folder of the feed file, as the engine sees it."""
        if not self.has_own_disk:
            return self.feed_folder
        return Path(f"/proc/{self.engine.pid}/root{self.feed_folder}")

    @property
    def benchmarks(self) -> Path:
        return self.folder / "benchmarks.jsonl"

    def final_books(self) -> list[Path]:
        return sorted((self.folder / "final_books").glob("*.json"))

    def degraded(self) -> dict[str, str]:
        """Return what the engine says does not work, and why."""
        return probe(self.metrics_port, "/readyz")[1]

    def scrape(self) -> Scrape:
        """Return the engine's counters, whose equations hold at whatever moment this is."""
        found = scrape(self.metrics_port)
        found.check_equations()
        return found

    def spilled(self) -> int:
        return int(self.scrape().value("mbo_sink_spilled_total", sink="database"))

    def not_written(self) -> int:
        """Return how many snapshots the stores have dropped or still hold."""
        found, parts = self.scrape(), product(("dropped_total", "queue_items"), ("database", "jsonl"))
        return int(sum(found.value(f"mbo_sink_{part}", sink=sink) for part, sink in parts))

    def live_book(self) -> dict[str, Any]:
        """Return the head of the live book of the first symbol; of the replay before this one it is nothing."""
        raw = self.client.get(BOOK_KEY.format(symbol=SYMBOLS[0]))
        head = {} if raw is None else json.loads(msgpack.unpackb(raw)["head"] + "}")
        return {} if head.get("run_id") == self._run_before else head

    def _is_waiting(self) -> bool:
        status = self.remote.status()
        return status is not None and status["clients"] == 1

    def _spawn(self, name: str, env: dict[str, str], prefix: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        command = [*prefix, sys.executable, str(MANAGE), name]
        process = Program(name, command, self.folder / "log" / f"{name}.log", environment=env).start()
        self._started.append(process)
        return process
