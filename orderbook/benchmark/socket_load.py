"""How live books reach many clients of `/ws`: rounds of so many clients, and what each came to. Floor 1.

Clients run in processes of their own and are driven over pipes; the servers are looked at from outside, by process id.
Staleness is the time from an event's publication, which the engine writes into each book, to the arrival of the book's
bytes in the process that asked for them. Both ends read the wall clock: they must be one machine's, or two that agree.
"""

import contextlib
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from orderbook.benchmark import crowd
from orderbook.benchmark.crowd import Churn, Close, Closed, Count, Counted, Open, Opened
from orderbook.benchmark.socket_client import Target
from replay.benchmark.processes import BenchmarkError, cpu_s, open_files, own_memory, process, take, watched_memory

Report = dict[str, Any]

_SOON_S: Final = 0.2
"""For an order to reach every process before its time comes."""
_SETTLE_S: Final = 1.0
_RELEASED_WITHIN_S: Final = 2.0
"""What servers may take to let go of the next client that was cut off."""
_WARM: Final = 2000
_LIMITED: Final = 0.9
"""Of a core: a process of clients that takes so much may be slower than the servers."""
_MB: Final = 1e6
_OF_SERVERS: Final = ("server_cpu_s", "server_core_percent", "server_peak_mb", "server_growth_mb", "server_spread")


class Plan(NamedTuple):
    """What is measured."""

    target: Target
    seconds: float
    ramp_per_s: float
    """How many clients connect in a second."""
    server_pids: Sequence[int]
    """Empty: the servers cannot be looked at."""
    published: Callable[[], int] | None = None
    """Returns how many books have been published so far; None: nobody tells."""


@contextlib.contextmanager
def crowds(target: Target, count: int) -> Iterator[list[Connection]]:
    """Run processes of clients; yields the pipes to them."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(process(crowd.run, target))[1] for _ in range(count)]


def measure_round(pipes: Sequence[Connection], plan: Plan, clients: int, stalled: int = 0) -> Report:
    """Open so many clients, count what they get for ``seconds``, close them. Raises BenchmarkError."""
    pids = plan.server_pids
    mb_before, files_before = own_memory(*pids) / _MB, [open_files(pid) for pid in pids]
    with watched_memory(*pids) as memory:
        opened = _open(pipes, plan, clients)
        if stalled:
            opened += _open(pipes, plan, stalled, stalled=True)
        time.sleep(_SETTLE_S)
        spread = [open_files(pid) - before for pid, before in zip(pids, files_before, strict=True)]
        begin_ns = time.time_ns() + int(_SOON_S * 1e9)
        end_ns = begin_ns + int(plan.seconds * 1e9)
        for pipe in pipes:
            pipe.send(Count(begin_ns, end_ns))
        time.sleep(begin_ns / 1e9 - time.time())
        spent_s, published = cpu_s(*pids), plan.published and plan.published()
        time.sleep(end_ns / 1e9 - time.time())
        spent_s = cpu_s(*pids) - spent_s
        if plan.published is not None and published is not None:
            published = plan.published() - published
        counted: list[Counted] = [take(pipe, plan.seconds) for pipe in pipes]
        closed: list[Closed] = _ask(pipes, [Close()] * len(pipes))
    if disorder := sum(part.disorder for part in counted):
        raise BenchmarkError(f"expected books that only grow newer, found {disorder} that did not")
    of_servers: Report = dict.fromkeys(_OF_SERVERS)
    if pids:
        of_servers = {
            "server_cpu_s": round(spent_s, 3),
            "server_core_percent": round(100 * spent_s / plan.seconds, 1),
            "server_peak_mb": round(max(memory) / _MB, 1),
            "server_growth_mb": round(max(memory) / _MB - mb_before, 1),
            "server_spread": spread,
        }
    of_stalled: Counter[int] = sum((part.stalled for part in closed), Counter())
    return (
        {"clients": clients, "published": published}
        | _received(plan, clients, opened, counted, published)
        | of_servers
        | {"stalled": stalled, "stalled_closed": {str(code): many for code, many in sorted(of_stalled.items())}}
    )


def measure_churn(pipes: Sequence[Connection], plan: Plan, clients: int) -> Report:
    """Open so many clients and cut each off; tell what the servers held before and hold afterwards."""
    pids = plan.server_pids
    _churn(pipes, plan, min(clients, _WARM))  # the first make a process keep what it needs for so many
    _wait_until_released(pids, 0)
    files_before, mb_before = open_files(*pids), own_memory(*pids) / _MB
    opened = _churn(pipes, plan, clients)
    _wait_until_released(pids, files_before)
    faults: Counter[str] = sum((part.faults for part in opened), Counter())
    return {
        "churn": clients,
        "failed": faults.total(),
        "faults": dict(faults.most_common(3)),
        "server_fds_before": files_before if pids else None,
        "server_fds_after": open_files(*pids) if pids else None,
        "server_mb_before": round(mb_before, 1) if pids else None,
        "server_mb_after": round(own_memory(*pids) / _MB, 1) if pids else None,
    }


def percentile_ms(sorted_us: npt.NDArray[np.float64], percent: float) -> float | None:
    """Return the value that so many percent do not exceed, ms: one of those given (us, rising); None of none.

    >>> percentile_ms(np.array([1000.0, 2000.0, 3000.0, 9000.0]), 50), percentile_ms(np.array([]), 50)
    (2.0, None)
    """
    if not len(sorted_us):
        return None
    rank = max(int(np.ceil(percent / 100 * len(sorted_us))), 1)
    return round(float(sorted_us[rank - 1]) / 1000, 2)


def delivered_percent(books: Sequence[int], due: float) -> float:
    """Return how much of what was due each client has got, of the mean client, in percent; at most 100.

    One push less than due, at every client, is the edge of the window and no loss: it was on its way.

    >>> delivered_percent([300, 299], 300), delivered_percent([300, 297], 300), delivered_percent([], 300)
    (100.0, 99.5, 0.0)
    """
    if books and due - min(books) <= 1:
        return 100.0
    return round(min(100 * sum(books) / (max(len(books), 1) * due), 100.0), 2)


def _received(plan: Plan, clients: int, opened: list[Opened], counted: list[Counted], published: int | None) -> Report:
    books = [number for part in counted for number in part.books]
    ok = sum(part.standing for part in counted)
    parts: list[Opened | Counted] = [*opened, *counted]
    faults: Counter[str] = sum((part.faults for part in parts), Counter())
    staleness = array("q")
    for part in counted:
        staleness.extend(part.staleness_us)
    stale_us = np.sort(np.frombuffer(staleness, np.int64).astype(np.float64))
    connect_us = np.sort(np.array([seconds * 1e6 for part in opened for seconds in part.connect_s]))
    busiest_s = max(part.cpu_s for part in counted)
    expected = plan.seconds * 1000 / plan.target.push_ms
    missed = [0] * (clients - len(books))  # of those that never came in
    return {
        "ok": ok,
        "failed": clients - ok,
        "faults": dict(faults.most_common(3)),
        "msgs_per_client": round(sum(books) / clients, 2),
        "msgs_per_client_min": min(books, default=0),
        "msgs_per_s": round(sum(books) / plan.seconds, 1),
        "expected_per_client": round(expected, 2),
        "delivered_percent": delivered_percent(books + missed, max(expected, published or 0)),
        "message_bytes": round(sum(part.nbytes for part in counted) / max(sum(books), 1)),
        "staleness_p50_ms": percentile_ms(stale_us, 50),
        "staleness_p99_ms": percentile_ms(stale_us, 99),
        "staleness_max_ms": percentile_ms(stale_us, 100),
        "connect_p50_ms": percentile_ms(connect_us, 50),
        "connect_p95_ms": percentile_ms(connect_us, 95),
        "connect_p99_ms": percentile_ms(connect_us, 99),
        "generator_cpu_s": round(sum(part.cpu_s for part in counted), 2),
        "generator_limited": busiest_s > _LIMITED * plan.seconds,
    }


def _open(pipes: Sequence[Connection], plan: Plan, clients: int, *, stalled: bool = False) -> list[Opened]:
    """Open clients at the ramp, those of the processes in turns."""
    at = time.time() + _SOON_S
    every_s = len(pipes) / plan.ramp_per_s
    orders = [Open(part, at + number / plan.ramp_per_s, every_s, stalled) for number, part in _shares(pipes, clients)]
    return _ask(pipes, orders, lasts_s=clients / plan.ramp_per_s)


def _churn(pipes: Sequence[Connection], plan: Plan, clients: int) -> list[Opened]:
    at, every_s = time.time() + _SOON_S, len(pipes) / plan.ramp_per_s
    orders = [Churn(part, at + number / plan.ramp_per_s, every_s) for number, part in _shares(pipes, clients)]
    return _ask(pipes, orders, lasts_s=clients / plan.ramp_per_s)


def _wait_until_released(pids: Sequence[int], files: int) -> None:
    """Wait until processes hold no more files open than that, or have closed none for a while."""
    least, deadline = open_files(*pids), time.monotonic() + _RELEASED_WITHIN_S
    while least > files and time.monotonic() < deadline:
        time.sleep(_SOON_S)
        if (now := open_files(*pids)) < least:
            least, deadline = now, time.monotonic() + _RELEASED_WITHIN_S


def _shares(pipes: Sequence[Connection], clients: int) -> Iterator[tuple[int, int]]:
    """Yield the number of each process and of its clients."""
    for number in range(len(pipes)):
        yield number, len(range(number, clients, len(pipes)))


def _ask(pipes: Sequence[Connection], orders: Sequence[Any], lasts_s: float = 0.0) -> list[Any]:
    for pipe, order in zip(pipes, orders, strict=True):
        pipe.send(order)
    return [take(pipe, lasts_s) for pipe in pipes]
