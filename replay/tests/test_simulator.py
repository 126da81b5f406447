"""The simulated market keeps the rules of a real one, from its opening picture to its last record."""

from pathlib import Path

import numpy as np
import pytest

from orderbook.book import mbo
from orderbook.book.mbo import Action, Flags, MboArray, Side
from orderbook.book.reference import ReferenceBook
from orderbook.book.snapshot import BookState, book_state
from replay import simulator_kernel
from replay.feed.sources import open_recording
from replay.simulator import DEFAULT_START_NS, MIN_RECORDS, instrument_ids, product_of, simulate, write_session

PICTURE = Flags.SNAPSHOT | Flags.BAD_TS_RECV
COUNT = 60_000


@pytest.fixture(scope="module")
def session() -> MboArray:
    return simulate(COUNT, ["CLX5"], 7)


@pytest.fixture(scope="module")
def events(session: MboArray) -> list[MboArray]:
    """Return the session cut at its event ends."""
    ends = np.flatnonzero(session["flags"] & Flags.LAST) + 1
    return np.split(session, ends[:-1])


def opening(session: MboArray) -> int:
    """Return the index of the first trade, which is where the market opens."""
    return int((session["action"] == Action.TRADE).argmax())


def test_it_has_exactly_the_records_asked_for_and_ends_with_an_event() -> None:
    for count, symbols in ((MIN_RECORDS, ["CLX5"]), (5_001, ["CLX5"]), (20_003, ["CLX5", "ESZ5", "GCZ5"])):
        records = simulate(count, symbols, 3)
        assert len(records) == count
        for id_ in instrument_ids(symbols):
            assert records[records["instrument_id"] == id_][-1]["flags"] & Flags.LAST


def test_the_seed_decides_everything(session: MboArray) -> None:
    assert simulate(COUNT, ["CLX5"], 7).tobytes() == session.tobytes()
    assert simulate(COUNT, ["CLX5"], 8).tobytes() != session.tobytes()


def test_a_symbol_trades_the_same_whatever_trades_beside_it() -> None:
    alone = simulate(5_000, ["ESZ5"], 7)
    both = simulate(10_000, ["CLX5", "ESZ5"], 7)
    assert both[both["instrument_id"] == alone["instrument_id"][0]].tobytes() == alone.tobytes()


def test_it_opens_with_a_picture_of_resting_orders_in_priority_order(session: MboArray, events: list[MboArray]) -> None:
    picture = events[0]
    assert [picture[0]["action"], *{*picture[1:]["action"].tolist()}] == [Action.CLEAR, Action.ADD]
    assert (picture["flags"][:-1] == PICTURE).all() and picture["flags"][-1] == PICTURE | Flags.LAST
    assert (picture[0]["price"], picture[0]["sequence"]) == (mbo.UNDEF_PRICE, 0)
    assert (picture["ts_event"][1:] < DEFAULT_START_NS).all() and (picture["ts_recv"] == DEFAULT_START_NS).all()
    assert (np.diff(picture["order_id"][1:].astype(np.int64)) > 0).all()
    assert not (session[len(picture) :]["flags"] & (Flags.SNAPSHOT | Flags.BAD_TS_RECV)).any()


def test_it_is_crossed_in_the_pre_open_only_and_the_opening_uncrosses_it(session: MboArray) -> None:
    book, states = ReferenceBook(), []
    for n in range(len(session)):
        book.apply(session[n : n + 1])
        if book.at_event_end:
            states.append((n, book_state(book.bbo())))
    opens = opening(session)
    before = [state for n, state in states if n < opens]
    after = {state for n, state in states if n >= opens}
    assert before[0] is BookState.OK and before[-1] is BookState.CROSSED
    assert after == {BookState.OK}
    assert book.anomalies == {}


def test_every_change_names_an_order_that_rests_where_it_says(session: MboArray) -> None:
    resting: dict[int, tuple[int, int, int]] = {}
    kinds = {"price": 0, "up": 0, "down": 0, "partial": 0}
    for record in session:
        id_, side, price, size = (int(record[name]) for name in ("order_id", "side", "price", "size"))
        match record["action"]:
            case Action.ADD:
                assert id_ not in resting and size > 0
                resting[id_] = (side, price, size)
            case Action.CANCEL:
                assert resting[id_][:2] == (side, price) and 0 < size <= resting[id_][2]
                kinds["partial"] += size < resting[id_][2]
                resting[id_] = (side, price, resting[id_][2] - size)
                if resting[id_][2] == 0:
                    del resting[id_]
            case Action.MODIFY:
                was = resting[id_]
                assert was[0] == side and size > 0
                kinds["price" if was[1] != price else "up" if size > was[2] else "down"] += 1
                resting[id_] = (side, price, size)
            case Action.FILL:
                assert resting[id_][0] == side and size <= resting[id_][2]
    assert all(count > 20 for count in kinds.values()), kinds


def removed_by(event: MboArray, sizes: dict[int, int]) -> int:
    """Return how much the C and M records of an event take away, and follow the sizes of all orders."""
    removed = 0
    for record in event:
        id_, size = int(record["order_id"]), int(record["size"])
        if record["action"] == Action.ADD:
            sizes[id_] = size
        elif record["action"] == Action.CANCEL:
            sizes[id_] -= size
            removed += size
        elif record["action"] == Action.MODIFY:
            removed += sizes[id_] - size
            sizes[id_] = size
    return removed


def test_what_is_traded_is_what_is_filled_and_what_goes(events: list[MboArray]) -> None:
    sizes: dict[int, int] = {}
    trades, openings, remainders = 0, 0, 0
    for event in events:
        removed = removed_by(event, sizes)
        traded, filled = (int(event["size"][event["action"] == action].sum()) for action in (Action.TRADE, Action.FILL))
        if not traded:
            assert not filled and len(event) == 1 or event[0]["flags"] & Flags.SNAPSHOT
            continue
        trades += 1
        sides = {*event["side"][event["action"] == Action.TRADE].tolist()}
        if sides == {Side.NONE}:  # the opening: both orders of a match rested
            openings += 1
            assert removed == filled == 2 * traded
            continue
        assert removed == filled == traded
        (aggressor,) = sides
        assert {*event["side"][event["action"] == Action.FILL].tolist()} == {Side.BID + Side.ASK - aggressor}
        remainders += Action.ADD in event["action"]
        assert len({*event["ts_event"].tolist()}) == 1
        assert np.diff(event["sequence"].astype(np.int64)).sum() == 1
    assert openings == 1 and trades > 500 and remainders > 10


def test_times_and_sequences_are_those_of_a_capture(session: MboArray) -> None:
    live = session[session["flags"] & Flags.SNAPSHOT == 0]
    assert (np.diff(live["ts_event"].astype(np.int64)) >= 0).all()
    assert (np.diff(session["ts_recv"].astype(np.int64)) >= 0).all()
    assert (np.diff(live["sequence"].astype(np.int64)) >= 0).all()
    assert (live["ts_recv"] > live["ts_event"]).all()
    assert live["ts_in_delta"].min() > 0
    waits = np.diff(session["ts_recv"].astype(np.int64))
    assert waits.max() > 150 * 10**9, "a lull"
    assert np.unique(session["ts_recv"] // 10**9, return_counts=True)[1].max() > 200, "a burst"


def test_it_looks_like_a_liquid_future(session: MboArray, events: list[MboArray]) -> None:
    tick = product_of("CLX5").tick
    prices = session["price"][session["price"] != mbo.UNDEF_PRICE]
    assert (prices % tick == 0).all()
    hours = float(session["ts_recv"][-1] - session["ts_recv"][0]) / 3.6e12
    assert 30_000 < COUNT / hours < 60_000
    book, spreads, depths = ReferenceBook(), [], []
    for n, event in enumerate(events):
        book.apply(event)
        if n > 5000 and n % 10 == 0:
            bid, ask = book.bbo()
            assert bid is not None and ask is not None
            spreads.append((ask.price - bid.price) // tick)
            depths.append((len(book.levels(Side.BID)), len(book.levels(Side.ASK))))
    assert np.mean(np.array(spreads) == 1) > 0.6
    assert np.min(depths) > 15
    assert np.median(session["size"][session["action"] == Action.ADD]) <= 2


def test_symbols_are_interleaved_by_time_on_their_own_grids() -> None:
    records = simulate(20_000, ["CLX5", "ESZ5"], 1)
    assert (np.diff(records["ts_recv"].astype(np.int64)) >= 0).all()
    assert (np.diff(records["instrument_id"].astype(np.int64)) != 0).sum() > 2_000
    for id_, symbol in instrument_ids(["CLX5", "ESZ5"]).items():
        prices = records["price"][records["instrument_id"] == id_]
        assert (prices[prices != mbo.UNDEF_PRICE] % product_of(symbol).tick == 0).all()


@pytest.mark.parametrize("name", ["a.dbn", "a.dbn.zst"])
def test_a_session_is_written_as_a_recording_that_names_its_symbols(tmp_path: Path, name: str) -> None:
    symbols = instrument_ids(["CLX5", "ESZ5"])
    records = simulate(2_000, ["CLX5", "ESZ5"], 1)
    write_session(tmp_path / name, records, symbols)
    recording = open_recording(tmp_path / name)
    assert (recording.records == records).all()
    assert recording.symbols == symbols
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("count", "symbols", "message"),
    [
        (100, ["CLX5"], "at least 500 records for each symbol, found 100"),
        (999, ["CLX5", "ESZ5"], "at least 500 records for each symbol, found 499"),
        (1000, [], "at least one symbol"),
        (1000, ["CLX5", "CLX5"], "each once"),
        (1000, ["CL\nX5"], "printable ASCII"),
        (10**14, ["CLX5"], "at most 1000000000 records"),
    ],
)
def test_what_cannot_be_simulated_is_refused(count: int, symbols: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(count, symbols, 1)


def test_progress_adds_up() -> None:
    told: list[int] = []
    simulate(150_000, ["CLX5"], 1, progress=told.append)
    assert sum(told) == 150_000 and len(told) > 1


@pytest.mark.parametrize("seed", range(12))
def test_any_seed_makes_a_market_that_opens_and_is_never_crossed_afterwards(seed: int) -> None:
    records = simulate(4_000, ["NGX5"], seed)
    book = ReferenceBook()
    opens = opening(records)
    assert 0 < opens < 3_000
    for event in np.split(records, np.flatnonzero(records["flags"] & Flags.LAST)[:-1] + 1):
        book.apply(event)
        if event[-1]["sequence"] > records[opens]["sequence"]:
            assert book_state(book.bbo()) is BookState.OK
    assert book.anomalies == {}


def test_the_codes_of_the_kernel_are_the_public_ones() -> None:
    for name in ("ADD", "CANCEL", "MODIFY", "CLEAR", "TRADE", "FILL"):
        assert getattr(simulator_kernel, name) == Action[name]
    for name in ("BID", "ASK", "NONE"):
        assert getattr(simulator_kernel, f"SIDE_{name}") == Side[name]
    assert (simulator_kernel.LAST, simulator_kernel.PICTURE) == (Flags.LAST, PICTURE)
    assert (simulator_kernel.MBO_LENGTH, simulator_kernel.MBO_RTYPE) == (mbo.MBO_LENGTH, mbo.MBO_RTYPE)
    assert simulator_kernel.UNDEF_PRICE == mbo.UNDEF_PRICE


def test_instruments_of_one_channel_share_its_sequence() -> None:
    session = simulate(6_000, ["ESZ5", "NQZ5", "CLX5"], 3)
    plain = session[session["flags"] & int(Flags.SNAPSHOT) == 0]
    for channel_id, symbols in ((12, 2), (26, 1)):
        sent = plain[plain["channel_id"] == channel_id]
        assert len(np.unique(sent["instrument_id"])) == symbols
        assert (np.diff(sent["sequence"].astype(np.int64)) >= 0).all()
        of_packet = {(int(r["sequence"]), int(r["instrument_id"])) for r in sent}
        assert len(of_packet) == len({sequence for sequence, _ in of_packet})  # a packet is one instrument's
