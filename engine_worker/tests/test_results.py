"""Benchmark lines: one for each replay, however often an engine sees its end."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine_worker.results import append_line, benchmark_line, write_final_book
from engine_worker.tests.builders import Desk, config, session


def line_of(folder: Path, replay_id: int, **rule: Any) -> dict[str, Any]:
    desk = Desk(folder / "desk", **rule)
    desk.feed(session(100))
    desk.engine.shown.replay_id = replay_id
    return json.loads(json.dumps(benchmark_line(desk.engine.shown, desk.engine.config)))


def test_a_replay_has_one_line_of_an_engine_whatever_else_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "benchmarks.jsonl"
    path.parent.mkdir()
    path.write_bytes(b'[]\n{"torn\n\xff\n' + b"[" * 20_000 + b"\n")
    assert append_line(path, line_of(tmp_path, 5))
    before = path.read_bytes()
    assert not append_line(path, line_of(tmp_path, 5))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"replay_id": 6},
        {"engine": "another"},
        {"gateway": "127.0.0.1:2"},
        {"processed": 99},
        {"snapshot_every": 7},
        {"max_msgs": 99},
    ],
)
def test_another_replay_or_the_same_one_had_in_another_way_has_a_line_of_its_own(
    tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "benchmarks.jsonl"
    line = line_of(tmp_path, 5)
    assert [append_line(path, each) for each in (line, line | change)] == [True, True]


def test_replays_without_a_name_have_a_line_each(tmp_path: Path) -> None:
    line = line_of(tmp_path, 0)
    assert [append_line(tmp_path / "benchmarks.jsonl", line) for _ in range(2)] == [True, True]


def test_a_line_says_of_which_replay_of_which_gateway_it_is(tmp_path: Path) -> None:
    rule = config(tmp_path)
    line = line_of(tmp_path, 5)
    assert (line["replay_id"], line["gateway"]) == (5, f"{rule.host}:{rule.port}")


def test_two_engines_that_write_one_final_book_at_once_leave_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = []
    for records in (100, 5_000):
        desk = Desk(tmp_path / f"desk-{records}")
        desk.feed(session(records))
        books.append(next(iter(desk.engine.shown.tracks.values())))
    first, second = books

    def another_engine_meanwhile(file: int) -> None:
        monkeypatch.undo()
        assert write_final_book(tmp_path / "final", second)

    monkeypatch.setattr(os, "fsync", another_engine_meanwhile)
    assert write_final_book(tmp_path / "final", first)
    [path] = (tmp_path / "final").iterdir()
    left = path.read_bytes()
    assert write_final_book(tmp_path / "alone", first)
    assert left == (tmp_path / "alone" / path.name).read_bytes()


def test_a_replay_has_its_benchmark_line_though_no_final_book_can_be_written(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    (tmp_path / "final_books").write_text("in the way")
    desk.feed(session(100))
    desk.engine.end()
    assert "final_books" in desk.engine.fault
    [line] = (tmp_path / "benchmarks.jsonl").read_text().splitlines()
    assert json.loads(line)["processed"] == 100
