"""Replay control on the live page, in a real browser: what each control asks for, and what is shown of the answer."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from orderbook.tests.pages import FakeControl, sign_in
from replay.models import Dataset

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_operator_starts_and_stops_a_replay(
    web: str, page: Page, page_errors: list[str], operator: Any, control: FakeControl
) -> None:
    Dataset.objects.create(name="CLX5.dbn", path="/x", state=Dataset.State.READY, records=38212)
    sign_in(page, web, operator)
    state = page.get_by_test_id("replay-state")
    expect(state).to_have_text("idle")
    page.get_by_label("Pace").select_option("50000")
    page.get_by_role("button", name="Start").click()
    expect(state).to_have_text("replaying")
    page.get_by_role("button", name="Stop").click()
    expect(state).to_have_text("stopped")
    page.get_by_label("Pace").select_option("0.1x")
    page.get_by_label("Skip idle").check()
    page.get_by_role("button", name="Start").dblclick()
    expect(state).to_have_text("replaying")
    expect(page.locator("#announcement")).to_contain_text("Replay replaying")
    assert control.asked == [
        ("start", {"pace": {"records_per_s": 50000}, "skip_idle_s": None, "dataset": "CLX5.dbn"}),
        ("stop", {}),
        ("start", {"pace": {"market_time": 0.1}, "skip_idle_s": 60, "dataset": "CLX5.dbn"}),
    ]
    assert len(set(control.keys)) == 3
    assert page_errors == []


def test_the_page_says_where_the_replay_is_and_how_fast(
    web: str, page: Page, page_errors: list[str], reader: Any, control: FakeControl
) -> None:
    control.replay |= {"state": "PAUSED", "pace": {"market_time": 2.5}, "skip_idle_s": 10.0}
    sign_in(page, web, reader)
    expect(page.get_by_test_id("replay-state")).to_have_text("paused")
    expect(page.get_by_test_id("event")).to_have_text("12\u202f044")
    expect(page.get_by_test_id("replay-time")).to_have_text("2025-09-24 20:12:07.118\u202f204\u202f551")
    expect(page.get_by_test_id("asked")).to_have_text("2.5× market time")
    expect(page.get_by_test_id("achieved")).to_have_text("1\u202f004/s")
    expect(page.get_by_test_id("lag")).to_have_text("12")
    expect(page.get_by_label("Pace")).to_have_value("2.5x")
    expect(page.get_by_label("Skip idle over 10 s")).to_be_checked()
    expect(page.get_by_test_id("seek")).to_have_value("0.5")
    expect(page.get_by_test_id("seek")).to_have_attribute("aria-valuetext", "record 19\u202f106 of 38\u202f212, 50.0 %")
    control.replay |= {"state": "RUNNING", "position": {"record": 0, "records": 0, "fraction": 0.0, "ts": None}}
    expect(page.get_by_test_id("replay-state")).to_have_text("replaying")  # the older word for it
    expect(page.get_by_test_id("position")).to_have_text("–")
    assert page_errors == []


def test_every_control_of_the_transport_asks_for_its_command(
    web: str, page: Page, page_errors: list[str], operator: Any, control: FakeControl
) -> None:
    control.replay["state"] = "REPLAYING"
    sign_in(page, web, operator)
    pause = page.get_by_role("button", name="Pause")
    pause.click()
    expect(pause).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#announcement")).to_contain_text("Replay paused")
    pause.click()
    expect(pause).to_have_attribute("aria-pressed", "false")
    assert control.asked == [("pause", {}), ("resume", {})]
    control.asked.clear()
    for unit, back, on in [("record", 1, 1), ("event", 2, 0), ("trade", 0, 1), ("bbo", 1, 0)]:
        page.get_by_label("Step by").select_option(unit)
        for name, by, times in [("Step back", -1, back), ("Step forward", 1, on)]:
            for _ in range(times):
                page.get_by_role("button", name=name).click()
                assert control.told(1) == [("step", {"unit": unit, "by": by})]
                expect(pause).to_have_attribute("aria-pressed", "true")
    for kind in ["trade", "crossing", "anomaly"]:
        page.get_by_role("button", name=f"Next {kind}").click()
        assert control.told(1) == [("seek", {"next": kind})]
    expect(page.locator("#announcement")).to_contain_text(
        "Record 19\u202f106 of 38\u202f212, 50.0 %, 20:12:07.118\u202f204\u202f551"
    )
    for typed, place in [
        ("19,106", {"record": 19106}),
        ("1758742200001385399", {"ts": "1758742200001385399"}),
        ("2025-09-24T19:30:00.001385399Z", {"ts": "2025-09-24T19:30:00.001385399Z"}),
        ("2025-09-23 19:30:00+02:00", {"ts": "2025-09-23T19:30:00+02:00"}),
        ("21:45", {"ts": "2025-09-24T21:45:00Z"}),
        ("yesterday", {"ts": "yesterday"}),
    ]:
        page.get_by_label("Go to").fill(typed)
        page.get_by_label("Go to").press("Enter")
        assert control.told(1) == [("seek", place)]
    assert page_errors == []


def test_the_seek_bar_sends_one_seek_when_it_is_released(
    web: str, page: Page, page_errors: list[str], operator: Any, control: FakeControl
) -> None:
    control.replay["state"] = "REPLAYING"
    sign_in(page, web, operator)
    bar = page.get_by_test_id("seek")
    expect(bar).to_have_value("0.5")
    box = bar.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    for part in (0.6, 0.8, 0.75):
        page.mouse.move(box["x"] + box["width"] * part, middle)
    with page.expect_response("**/status"):  # it does not pull the bar out of the reader's hand
        pass
    assert 0.7 < float(bar.input_value()) < 0.8
    assert control.asked == []
    page.mouse.up()
    [(verb, body)] = control.told(1)
    assert verb == "seek" and 0.7 < body["fraction"] < 0.8 and list(body) == ["fraction"]
    expect(bar).to_have_value("0.5")  # where the replay says it is
    bar.press("Home")
    assert control.told(1) == [("seek", {"fraction": 0})]
    bar.press(" ")
    assert control.told(1) == [("pause", {})]
    assert page_errors == []


NO_SITE_DATA = """
Object.defineProperty(window, "localStorage", { get() { throw new DOMException("denied", "SecurityError"); } });
"""


def test_where_the_browser_keeps_nothing_for_sites_the_page_works_and_so_do_its_keys(
    web: str, page: Page, page_errors: list[str], operator: Any, control: FakeControl
) -> None:
    page.add_init_script(NO_SITE_DATA)
    control.replay["state"] = "REPLAYING"
    sign_in(page, web, operator)
    expect(page.get_by_role("button", name="Pause")).to_be_enabled()
    page.keyboard.press(",")
    assert control.told(1) == [("step", {"unit": "event", "by": -1})]
    page.get_by_label("Keyboard shortcuts").uncheck()
    page.keyboard.press(",")
    page.get_by_label("Keyboard shortcuts").check()
    page.keyboard.press(".")
    assert control.told(1) == [("step", {"unit": "event", "by": 1})]
    assert page_errors == []


def test_keys_press_the_buttons_that_name_them(
    web: str, page: Page, page_errors: list[str], operator: Any, control: FakeControl
) -> None:
    control.replay["state"] = "REPLAYING"
    sign_in(page, web, operator)
    expect(page.get_by_role("button", name="Pause")).to_be_enabled()
    for key, command, state in [
        (" ", ("pause", {}), "paused"),
        (",", ("step", {"unit": "event", "by": -1}), "paused"),
        (".", ("step", {"unit": "event", "by": 1}), "paused"),
        (" ", ("resume", {}), "replaying"),
        ("]", ("pace", {"pace": {"records_per_s": 10000}, "skip_idle_s": None}), "replaying"),
        ("[", ("pace", {"pace": {"records_per_s": 1000}, "skip_idle_s": None}), "replaying"),
    ]:
        page.keyboard.press(key)
        assert control.told(1) == [command]
        expect(page.get_by_test_id("replay-state")).to_have_text(state)
    assert page.evaluate("() => scrollY") == 0
    page.get_by_label("Go to").press_sequentially("1,5 .[]")  # typing is no command
    page.keyboard.press("Control+.")
    page.get_by_label("Keyboard shortcuts").uncheck()
    page.reload()
    expect(page.get_by_role("button", name="Pause")).to_be_enabled()
    expect(page.get_by_label("Keyboard shortcuts")).not_to_be_checked()
    page.keyboard.press(",")
    page.get_by_label("Keyboard shortcuts").check()
    page.keyboard.press("]")
    assert control.told(1) == [("pace", {"pace": {"records_per_s": 10000}, "skip_idle_s": None})]
    assert page_errors == []


def test_slower_and_faster_climb_the_ladder_of_the_kind_of_pace(
    web: str, page: Page, page_errors: list[str], operator: Any, control: FakeControl
) -> None:
    sign_in(page, web, operator)
    expect(page.get_by_test_id("replay-state")).to_have_text("idle")
    pace = page.get_by_label("Pace")
    ladders = [
        ["200", "1000", "10000", "50000", "500000", "max"],
        ["0.1x", "1x", "10x", "100x", "1000x", "10000x", "max"],
    ]
    for ladder in ladders:
        pace.select_option(ladder[0])
        page.get_by_role("button", name="Slower").click()
        climbed = [pace.input_value()]
        for button in ["Faster"] * len(ladder) + ["Slower"]:
            page.get_by_role("button", name=button).click()
            climbed.append(pace.input_value())
        assert climbed == [*ladder, "max", ladder[-2]]
    control.replay |= {"state": "REPLAYING", "pace": {"records_per_s": 3000}}
    expect(pace).to_have_value("3000")
    page.get_by_role("button", name="Slower").click()
    assert control.told(1) == [("pace", {"pace": {"records_per_s": 1000}, "skip_idle_s": None})]
    expect(page.get_by_test_id("asked")).to_have_text("1\u202f000 records/s")


def test_the_pace_that_is_shown_is_the_one_that_is_wanted_until_the_replay_says_otherwise(
    web: str, page: Page, operator: Any, control: FakeControl
) -> None:
    control.replay["state"] = "REPLAYING"
    sign_in(page, web, operator)
    expect(page.get_by_test_id("replay-state")).to_have_text("replaying")
    control.answers["status"] = (502, {"detail": "the streamer is silent"})  # only commands are answered
    pace, skip, asked = page.get_by_label("Pace"), page.get_by_label("Skip idle"), page.get_by_test_id("asked")
    control.held = []
    pace.select_option("10x")
    pace.select_option("100x")
    skip.check()
    assert control.told(1) == [("pace", {"pace": {"market_time": 10}, "skip_idle_s": None})]
    control.answer(control.held.pop())
    expect(asked).to_have_text("10× market time")
    expect(pace).to_have_value("100x")
    assert control.told(1) == [("pace", {"pace": {"market_time": 100}, "skip_idle_s": 60})]
    control.answer(control.held.pop())
    expect(asked).to_have_text("100× market time")
    expect(skip).to_be_checked()
    control.held = None
    control.answers["pace"] = (400, {"detail": "No replay runs."})
    pace.select_option("max")
    expect(page.get_by_role("alert")).to_have_text("No replay runs.")
    del control.answers["status"]
    expect(pace).to_have_value("100x")


def test_commands_that_wait_for_an_answer_become_one(
    web: str, page: Page, page_errors: list[str], operator: Any, control: FakeControl
) -> None:
    control.replay["state"] = "PAUSED"
    sign_in(page, web, operator)
    expect(page.get_by_role("button", name="Pause")).to_be_enabled()
    control.held = []
    for _ in range(5):
        page.keyboard.press(".")
    page.keyboard.press("]")
    page.keyboard.press("]")
    page.keyboard.press(" ")
    page.keyboard.press(" ")
    assert control.told(1) == [("step", {"unit": "event", "by": 1})]
    [first], control.held = control.held, None
    control.answer(first)
    assert control.told(4) == [
        ("step", {"unit": "event", "by": 4}),
        ("pace", {"pace": {"records_per_s": 50000}, "skip_idle_s": None}),
        ("resume", {}),
        ("pause", {}),
    ]
    assert page_errors == []


def test_a_command_without_an_answer_is_asked_again_under_the_same_key(
    web: str, page: Page, operator: Any, control: FakeControl
) -> None:
    control.replay["state"] = "REPLAYING"
    control.held = []
    sign_in(page, web, operator)
    page.get_by_role("button", name="Pause").click()
    control.told(1)
    [lost], control.held = control.held, None
    lost.abort()
    expect(page.get_by_test_id("replay-state")).to_have_text("paused")
    assert control.asked == [("pause", {})]
    assert control.keys[0] == control.keys[1]


def test_an_error_of_the_control_plane_is_shown_in_the_page(
    web: str, page: Page, operator: Any, control: FakeControl
) -> None:
    control.answers["start"] = (502, {"detail": "Cannot reach streamer-control (main): no answer"})
    sign_in(page, web, operator)
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_have_text("Cannot reach streamer-control (main): no answer")
    del control.answers["start"]
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_be_hidden()
    control.answers["seek"] = (400, {"detail": "no further anomaly behind record 19106"})
    page.get_by_role("button", name="Next anomaly").click()
    expect(page.get_by_role("alert")).to_have_text("no further anomaly behind record 19106")
    control.answers["start"] = (200, control.replay | {"note": "already running"})
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was changed: already running at 1\u202f000 records/s")
    control.replay |= {"state": "FAILED", "error": "session.dbn: cut off at byte 4711"}
    expect(page.get_by_role("alert")).to_have_text("session.dbn: cut off at byte 4711")
    control.answers["status"] = (502, {"detail": "the streamer is silent"})
    expect(page.get_by_test_id("replay-state")).to_have_text("replay unknown")


def test_the_transport_needs_a_replay(web: str, page: Page, operator: Any, control: FakeControl) -> None:
    control.replay["state"] = "REPLAYING"
    sign_in(page, web, operator)
    controls = page.get_by_role("group", name="Where in the recording").locator("button, input, select")
    expect(controls).to_have_count(10)
    for one in controls.all():
        expect(one).to_be_enabled()
    control.replay["state"] = "DONE"
    for one in controls.all():
        expect(one).to_be_disabled()
    page.keyboard.press(".")
    expect(page.get_by_role("button", name="Start")).to_be_enabled()
    assert control.asked == []


def test_a_reader_sees_why_he_cannot_control(web: str, page: Page, reader: Any, control: FakeControl) -> None:
    control.replay["state"] = "REPLAYING"
    sign_in(page, web, reader)
    expect(page.get_by_test_id("replay-state")).to_have_text("replaying")
    for one in page.locator("#control fieldset").locator("button, input, select").all():
        expect(one).to_be_disabled()
    expect(page.get_by_role("button", name="Start")).to_have_accessible_description(re.compile("needs the permission"))
    page.keyboard.press(" ")
    page.keyboard.press("]")
    expect(page.get_by_label("Pace")).to_have_value("1000")
    assert control.asked == []
