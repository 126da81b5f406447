import io
from typing import cast

from batonic_site.terminal import Screen, opening_block, status_line
from orderbook.live import EngineStatus
from replay.streamer.messages import ReplayState, StreamerStatus


def streamer(**changes: object) -> StreamerStatus:
    status = StreamerStatus(
        state=ReplayState.REPLAYING, replay_id=1, generation=1, dataset="sample.dbn", pid=1, error="",
        pace={"records_per_s": 1000}, achieved_records_per_s=1002, position=123456, records=300000, ts_event="0",
        loops=0, clients=1, raw_port=9000,
    )  # fmt: skip
    return cast(StreamerStatus, status | changes)


def engine(**changes: object) -> EngineStatus:
    status = EngineStatus(
        state="streaming", run_id="r", records=1, records_per_s=1, snapshots=9, snapshots_stored=1234, queue_items=0,
        symbols={"CLX5": {"bid": "64.83 x 6", "ask": "64.84 x 4", "ts": "", "state": "ok"}},
        feed_path="", feed_size_bytes=0, degraded={}, ts="",
    )  # fmt: skip
    return cast(EngineStatus, status | changes)


def test_the_line_has_position_rate_best_prices_and_what_is_stored():
    assert status_line(streamer(), engine(), "CLX5").split("   ") == [
        "sample.dbn replaying 123,456/300,000 (41%)",
        "1,002 records/s",
        "CLX5 64.83 x 6 / 64.84 x 4",
        "1,234 snapshots stored",
    ]


def test_the_line_says_who_is_silent():
    assert status_line(None, None, "CLX5") == "streamer: no sign of life   engine: no sign of life"


def test_the_line_shows_another_symbol_when_the_default_one_is_not_traded():
    other = {"ESZ5": {"bid": "", "ask": "6650.25 x 1", "ts": "", "state": "one_sided"}}
    assert "ESZ5 - / 6650.25 x 1" in status_line(streamer(), engine(symbols=other), "CLX5")


def test_the_line_says_what_is_degraded():
    line = status_line(streamer(state=ReplayState.IDLE), engine(degraded={"database": "refused"}), "CLX5")
    assert line.startswith("no replay") and line.endswith("database degraded: refused")


def test_the_block_starts_with_the_address_and_ends_with_the_warnings():
    lines = opening_block("http://localhost:8000", {"login": "admin", "data folder": "var"}, ["open"]).splitlines()
    assert lines[1].strip() == "Batonic is at http://localhost:8000"
    assert lines[3:6] == ["  login        admin", "  data folder  var", "  WARNING: open"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_line_rewritten_and_a_file_gets_many():
    terminal, file = Terminal(), io.StringIO()
    for out in (terminal, file):
        screen = Screen(out)
        screen.status("one")
        screen.status("two")
        screen.say("done")
    assert terminal.getvalue() == "\r\x1b[2Kone\r\x1b[2Ktwo\r\x1b[2Kdone\n"
    assert file.getvalue() == "one\ntwo\ndone\n"


def test_a_closed_terminal_is_no_reason_to_fail():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Screen(Gone()).say("hello")
