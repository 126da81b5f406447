"""The index of a recording: exact keyframes, a bound on its size, and no use of one that is damaged or another's."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from orderbook.book.digest import market_hash
from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import BookKey, MboArray
from orderbook.book.protocol import Market
from orderbook.book.tape import Tape
from orderbook.tests.records import KINDS, LAST, SNAPSHOT, TOB, add, cancel, random_session, record, stream
from replay.feed import indexing
from replay.feed.index import Index, IndexFault, index_path, is_indexed, open_index, origin_of, read_index
from replay.feed.indexing import make_index
from replay.feed.keyframe import Keyframe, KeyframeFault, Shape, pack, restore, shape_of, unpack
from replay.feed.marks import in_snapshot_after
from replay.feed.picture import capture
from replay.feed.sources import open_recording
from replay.tests.recordings import write_dbn
from replay.tests.streams import STREAMS, eventful, index_bytes, index_of, session


@pytest.fixture(params=STREAMS)
def records(request: pytest.FixtureRequest) -> MboArray:
    return STREAMS[request.param]()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_dbn(tmp_path / "made.dbn", random_session(1, 3000))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def state(market: Market) -> tuple[object, ...]:
    books = sorted(market.books.items())
    stands = [(key, book.ts_event, book.ts_recv, book.sequence, book.at_event_end) for key, book in books]
    return market_hash(books), stands


def anomalies(market: Market) -> dict[object, int]:
    return {(key, kind): n for key, book in market.books.items() for kind, n in book.anomalies.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_from_any_keyframe_books_and_tape_go_on_as_if_nothing_had_happened(records: MboArray, kind: BookKind) -> None:
    if kind == "reference":
        records = records[:2500]
    index = index_of(records, kind)
    plain, tape = make_market(kind), Tape()
    plain.apply(records, tape)
    for number, position in enumerate(index.positions.tolist()):
        ahead, behind = make_market(kind), Tape()
        ahead.apply(records[:position])
        restored = restore(index.keyframe(number), kind, behind)
        assert state(restored) == state(ahead)
        assert anomalies(restored) == {}
        behind.empty()
        before = behind.records
        restored.apply(records[position:], behind)
        assert state(restored) == state(plain)
        assert {k: n + anomalies(ahead).get(k, 0) for k, n in anomalies(restored).items()}.items() <= anomalies(
            plain
        ).items()
        rows = behind.bbos.copy()
        rows["record"] += position - before
        expected = tape.bbos[tape.bbos["record"] >= position]
        for name in rows.dtype.names or ():
            assert rows[name].tolist() == expected[name].tolist(), name


def test_the_streams_hold_what_a_keyframe_must_carry() -> None:
    indexes = [index_of(eventful(instruments)) for instruments in (1, 3, 50)]
    keyframes = [index.keyframe(number) for index in indexes for number in range(len(index.positions))]
    heads = np.concatenate([keyframe.picture.heads for keyframe in keyframes])
    assert not heads["at_event_end"].all() and heads["at_event_end"].any()
    assert heads["in_snapshot"].any() and heads["top_sz"].any()
    assert (heads["bids"] + heads["asks"] == 0).any()
    assert sum(len(keyframe.taped) for keyframe in keyframes) > 0
    assert len(indexes[2].keyframe(0).picture.heads) < len(keyframes[-1].picture.heads), "one is named later"


@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_without_a_clear_behind_a_keyframe_replaces_what_rests(kind: BookKind) -> None:
    records = stream(add("B", 100, 5, 1), add("B", 101, 5, 2), add("B", 99, 1, 3, SNAPSHOT | LAST))
    market = make_market(kind)
    market.apply(records[:2])
    restored = restore(Keyframe(capture(market), Tape().bbos), kind)
    restored.apply(records[2:])
    market.apply(records[2:])
    assert state(restored) == state(market)
    assert len(next(iter(restored.books.values()))) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "best",
    [
        [add("B", 100, 5, 1), add("B", 100, 8, 2), add("B", 100, 1, 3)],
        [add("B", 100, 5, 0, LAST | TOB)],
        [add("B", 100, 2**32 - 1, 0, LAST | TOB), add("B", 100, 2**32 - 1, 1), add("B", 100, 2**32 - 1, 2)],
        [add("B", 100, 5, 1), add("A", 90, 5, 2), add("A", 90, 2, 3)],
        [add("B", 100, 5, 1), cancel("B", 100, 5, 1)],
    ],
)
def test_a_tape_goes_on_in_mid_event_whatever_the_best_prices_were(kind: BookKind, best: list[tuple[int, ...]]) -> None:
    other = {"instrument_id": 9}
    rows = [*best, record("A", "B", 101, 1, 77, 0), record("A", "B", 1, 1, 1, **other)]  # type: ignore[arg-type]
    rows += [record("C", "B", 101, 1, 77), record("A", "B", 102, 1, 78)]
    records = stream(*rows)
    position = len(rows) - 2
    index = index_of(records, kind, every=position)
    market, tape = make_market(kind), Tape()
    market.apply(records[:position], tape)
    newest = tape.bbos[tape.bbos["instrument_id"] != 9][-1:]
    behind = Tape()
    restored = restore(Keyframe(capture(market), newest), kind, behind)
    assert index.marks["bbos"][1] == len(tape.bbos)
    for each, to in ((market, tape), (restored, behind)):
        to.empty()
        each.apply(records[position:], to)
    assert len(tape.bbos) == 1, "the order of the open event came and went unseen"
    assert tape.bbos[["bid_px", "ask_px"]].tolist() == behind.bbos[["bid_px", "ask_px"]].tolist()


@pytest.mark.parametrize("instruments", [1, 3, 50])
def test_which_books_are_in_a_snapshot_is_said_by_the_last_record_of_each(instruments: int) -> None:
    records = eventful(instruments, 3000)
    rng = np.random.default_rng(4)
    records["flags"][rng.random(len(records)) < 0.02] |= SNAPSHOT
    inside: dict[tuple[int, int], bool] = {}
    found: frozenset[BookKey] = frozenset()
    for part in np.split(records, np.sort(rng.integers(0, len(records), 300))):
        for each in part:
            inside[int(each["publisher_id"]), int(each["instrument_id"])] = bool(each["flags"] & SNAPSHOT)
        found = in_snapshot_after(part, found)
        assert found == {key for key, is_inside in inside.items() if is_inside}


def test_a_top_of_book_level_of_long_ago_is_in_every_later_keyframe() -> None:
    records = random_session(1, 1000, ids=20)
    records["instrument_id"][0] = 9
    records[0:1] = stream(record("A", "B", 100, 5, 0, LAST | TOB, instrument_id=9))
    index = index_of(records, every=200)
    assert len(index.positions) == 4
    for number in range(4):
        heads = index.keyframe(number).picture.heads
        assert heads["top_sz"].tolist() == [[5, 0], [0, 0]] and heads["top_px"][0].tolist() == [100, 0]


def test_a_position_has_the_last_keyframe_that_is_not_behind_it() -> None:
    index = index_of(random_session(1, 1000, ids=20), every=200)
    nearest = {position: index.nearest(position) for position in (0, 199, 200, 201, 399, 400, 999, 5000)}
    assert nearest == {0: None, 199: None, 200: 0, 201: 0, 399: 0, 400: 1, 999: 3, 5000: 3}


def test_packed_keyframes_are_unpacked_with_the_worst_level_first() -> None:
    market = make_market("reference")
    market.apply(eventful(3))
    keyframe = Keyframe(capture(market), Tape().bbos)
    again = unpack(pack(keyframe), shape_of(keyframe))
    assert again.picture.heads.tobytes() == keyframe.picture.heads.tobytes()
    assert sorted(again.picture.orders.tolist()) == sorted(keyframe.picture.orders.tolist())
    head = again.picture.heads[0]
    bids = again.picture.orders["price"][: head["bids"]].tolist()
    assert bids == sorted(bids) and bids != sorted(bids, reverse=True)


def test_bytes_that_are_no_keyframe_of_that_shape_are_refused() -> None:
    market = make_market("reference")
    market.apply(eventful(1))
    keyframe = Keyframe(capture(market), Tape().bbos)
    shape, packed = shape_of(keyframe), pack(keyframe)
    for wrong in (shape._replace(orders=shape.orders + 1), Shape(0, 0, 0)):
        with pytest.raises(KeyframeFault, match="expected a keyframe of"):
            unpack(packed, wrong)
    with pytest.raises(KeyframeFault, match="expected a zstd frame"):
        unpack(packed[:-5], shape)
    with pytest.raises(KeyframeFault, match="expected a zstd frame"):
        unpack(b"nothing like it", shape)


def test_the_index_is_at_most_a_tenth_of_the_records_and_denser_where_books_are_small() -> None:
    dense, bounded = index_of(session(1, 40_000), every=2048), index_of(session(50, 40_000), every=2048)
    assert len(dense.positions) == 40_000 // 2048
    assert 1 < len(bounded.positions) < 40_000 // 2048
    for index in (dense, bounded):
        ends = index._entries["at"] + index._entries["size"]
        assert (ends[:-1] <= index._entries["at"][1:]).all()
        assert ((ends - index._entries["at"][0]) * 100 <= index.positions * 56 * indexing.KEYFRAME_PERCENT).all()
        assert len(index._data) <= 40_000 * 56 // 10


def test_no_damaged_byte_is_ever_used() -> None:
    records = eventful(3, 1500)
    data = index_bytes(records)
    sound = [index_of(records).keyframe(number) for number in range(len(index_of(records).positions))]
    rng = np.random.default_rng(1)
    for place in range(len(data)) if len(data) < 4000 else rng.permutation(len(data))[:4000].tolist():
        wrong = bytearray(data)
        wrong[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(IndexFault):
            index = Index(np.frombuffer(bytes(wrong), np.uint8), Path("made.index"))
            for number in range(len(sound)):
                index.keyframe(number)


def test_a_cut_index_is_refused(path: Path, folder: Path) -> None:
    made = make_index(open_recording(path), origin_of(path), folder)
    data = made.read_bytes()
    for size in [0, 1, 79, 80, 100, len(data) - 1]:
        made.write_bytes(data[:size])
        with pytest.raises(IndexFault, match="expected"):
            read_index(path, folder)
    made.write_bytes(data + b"\0")
    assert not is_indexed(path, folder)
    made.write_bytes(data)
    assert is_indexed(path, folder)


def test_an_index_is_found_beside_the_recordings_and_opened_with_its_own(path: Path, folder: Path) -> None:
    recording = open_recording(path)
    assert open_index(recording, folder) is None
    made = make_index(recording, origin_of(path), folder)
    assert made == index_path(path, folder) and list(folder.iterdir()) == [made]
    index = open_index(recording, folder)
    assert index is not None and index.records == 3000
    assert index.marks["position"].tolist() == [0, 3000]


def test_an_index_of_another_content_is_told_and_not_used(
    path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_index(open_recording(path), origin_of(path), folder)
    os.utime(path, ns=(0, 1))
    assert open_index(open_recording(path), folder) is None
    assert "made.dbn is not used: expected the index of a file of" in caplog.text
    origin = origin_of(path)
    make_index(open_recording(path), origin, folder)
    write_dbn(path, random_session(2, 3000))
    os.utime(path, ns=(0, 1))
    assert origin_of(path) == origin, "only the content tells them apart"
    assert open_index(open_recording(path), folder) is None
    assert "expected the index of these records, found that of others" in caplog.text


def test_an_index_of_another_version_is_told_and_not_used(
    path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_index(open_recording(path), origin_of(path), folder)
    data = bytearray(made.read_bytes())
    data[8] = 99
    made.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert open_index(open_recording(path), folder) is None
    assert "expected b'BATONIDX', version 1, found b'BATONIDX', version 99" in caplog.text


def test_work_that_is_given_up_leaves_nothing_and_the_index_before_stays(path: Path, folder: Path) -> None:
    made = make_index(open_recording(path), origin_of(path), folder)
    before = made.read_bytes()

    def give_up(n: int) -> None:
        assert n == 3000
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_index(open_recording(path), origin_of(path), folder, progress=give_up)
    assert list(folder.iterdir()) == [made] and made.read_bytes() == before


def test_what_a_killed_worker_left_is_removed_and_what_another_writes_now_is_not(path: Path, folder: Path) -> None:
    made = make_index(open_recording(path), origin_of(path), folder)
    left, written = (folder / f"{made.name}-{name}.part" for name in ("left", "written"))
    left.touch()
    os.utime(left, (0, 0))
    written.touch()
    make_index(open_recording(path), origin_of(path), folder)
    assert sorted(folder.iterdir()) == [made, written]


def test_a_file_that_changes_meanwhile_is_not_indexed(path: Path, folder: Path) -> None:
    with pytest.raises(IndexFault, match="found one that was written meanwhile"):
        make_index(open_recording(path), origin_of(path), folder, progress=lambda n: os.utime(path, ns=(0, 1)))
    assert list(folder.iterdir()) == []


def test_a_short_disk_is_told_before_anything_is_written(
    path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "SPARE_DISK_BYTES", 1 << 62)
    with pytest.raises(IndexFault, match="bytes free on the disk of"):
        make_index(open_recording(path), origin_of(path), folder)
    assert list(folder.iterdir()) == []
