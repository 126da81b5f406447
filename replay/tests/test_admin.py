"""The admin: facts to read, keys shown once, and verbs that ask for permission."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from orderbook.quality.report import VERSION
from replay import dispatch, lease
from replay.datasets import register
from replay.keys import create_key, find_key
from replay.models import ApiKey, Dataset, Replay, ScheduledReplay
from replay.quality import store_report
from replay.tests.recordings import session, write_dbn
from replay.tests.test_quality import check_here

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> User:
    return User.objects.create_superuser("alice", password="a long enough password")


@pytest.fixture
def admin(alice: User) -> Client:
    client = Client()
    client.force_login(alice)
    return client


@pytest.fixture
def replay() -> Replay:
    dataset = Dataset.objects.create(name="a.dbn", path="/a", state="ready", first_ts_event=1_758_742_200_000_860_311)
    return Replay.objects.create(dataset=dataset, state="DONE", pace={"records_per_s": 200}, position=7)


def act(client: Client, model: str, action: str, *ids: int) -> str:
    body = {"action": action, "_selected_action": [str(id_) for id_ in ids]}
    return client.post(f"/admin/replay/{model}/", body, follow=True).content.decode()


@pytest.mark.parametrize("model", ["dataset", "replay"])
def test_rows_of_the_system_are_read_and_not_changed(admin: Client, replay: Replay, model: str) -> None:
    row_id = replay.dataset_id if model == "dataset" else replay.pk
    assert "a.dbn" in admin.get(f"/admin/replay/{model}/").content.decode()
    assert admin.get(f"/admin/replay/{model}/{row_id}/change/").status_code == 200
    assert admin.post(f"/admin/replay/{model}/{row_id}/change/", {"name": "x"}).status_code == 403
    assert admin.get(f"/admin/replay/{model}/add/").status_code == 403


def test_a_key_is_made_and_shown_once(admin: Client, alice: User) -> None:
    body = {"owner": alice.pk, "name": "bot", "scopes": ["read", "feed"], "expires_at_0": "", "expires_at_1": ""}
    page = admin.post("/admin/replay/apikey/add/", body, follow=True).content.decode()
    shown = re.search(r"db-\w{29}", page)
    assert shown is not None
    key = find_key(shown[0])
    assert key is not None
    assert (key.owner, key.name, key.scopes) == (alice, "bot", ["read", "feed"])
    assert ApiKey.objects.count() == 1
    assert "db-" not in admin.get("/admin/replay/apikey/").content.decode()


@pytest.mark.parametrize(
    ("owner", "scopes", "may_control", "is_made"),
    [
        ("sam", ["read", "feed"], False, True),
        ("alice", ["read"], False, False),
        ("sam", ["control"], False, False),
        ("sam", ["control"], True, True),
        ("alice", ["control"], True, False),
    ],
)
def test_staff_make_keys_for_themselves_that_may_do_what_they_may(
    alice: User, owner: str, scopes: list[str], may_control: bool, is_made: bool
) -> None:
    sam = User.objects.create_user("sam", is_staff=True)
    codenames = ["add_apikey", "view_apikey", *(["control_replay"] if may_control else [])]
    sam.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(sam)
    owner_id = {"sam": sam, "alice": alice}[owner].pk
    client.post("/admin/replay/apikey/add/", {"owner": owner_id, "name": "bot", "scopes": scopes})
    assert [(key.owner, key.scopes) for key in ApiKey.objects.all()] == ([(sam, scopes)] if is_made else [])


def test_a_key_without_a_scope_is_not_made(admin: Client, alice: User) -> None:
    admin.post("/admin/replay/apikey/add/", {"owner": alice.pk, "name": "bot"})
    assert not ApiKey.objects.exists()


def test_a_revoked_key_opens_nothing_any_more(admin: Client, alice: User) -> None:
    row, text = create_key(alice, "bot", ["read"])
    assert "1 keys revoked" in act(admin, "apikey", "revoke", row.pk)
    assert find_key(text) is None


def test_stopping_what_does_not_run_says_so(admin: Client, replay: Replay) -> None:
    assert "None of these is running" in act(admin, "replay", "stop", replay.pk)


def test_a_stop_that_reaches_nobody_says_so(
    admin: Client, replay: Replay, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setattr(dispatch, "ANSWER_WITHIN_S", 0.2)
    Replay.objects.update(state="REPLAYING")
    assert "no Celery worker answered" in act(admin, "replay", "stop", replay.pk)


def test_who_may_only_look_is_offered_no_stop(replay: Replay) -> None:
    vera = User.objects.create_user("vera", is_staff=True)
    vera.user_permissions.set(_permissions("view_replay"))
    client = Client()
    client.force_login(vera)
    page = client.get("/admin/replay/replay/").content.decode()
    assert "a.dbn" in page
    assert 'value="stop"' not in page


@pytest.fixture
def verified(data_folder: Path) -> Dataset:
    """Return a dataset with its quality report."""
    dataset = register(write_dbn(data_folder / "data" / "made.dbn", session(1000)))
    store_report(dataset.pk, check=check_here)
    return Dataset.objects.get()


def test_the_list_says_what_each_report_comes_to(admin: Client, verified: Dataset) -> None:
    anomalies = verified.quality["anomaly_count"]
    for name, state, quality in (
        ("new.dbn", "ready", None),
        ("bad.dbn", "failed", None),
        ("clean.dbn", "ready", {"version": VERSION, "ok": True, "anomaly_count": 0}),
        ("broken.dbn", "ready", {"version": VERSION, "ok": False, "anomaly_count": 5}),
        ("cut.dbn", "ready", {"version": VERSION, "error": "why"}),
        ("old.dbn", "ready", {"version": VERSION - 1, "ok": True}),
    ):
        Dataset.objects.create(name=name, path=name, state=state, quality=quality)
    page = admin.get("/admin/replay/dataset/").content.decode()
    verdicts = re.findall(r'field-quality_verdict">([^<]*)<', page)
    assert verdicts == ["-", "FAILED", "OK", "no report", f"{anomalies:,} anomalies", "not yet", "not yet"]
    assert admin.get("/admin/replay/dataset/?o=3").status_code == 200


def test_the_page_of_a_dataset_shows_its_report_without_inline_style(admin: Client, verified: Dataset) -> None:
    answer = admin.get(f"/admin/replay/dataset/{verified.pk}/change/")
    page = answer.content.decode()
    assert '<strong class="holds">OK</strong> made.dbn: the reference book checked' in page
    for words in (
        "unknown_cancel",
        "Books at the end",
        "CLX5",
        verified.quality["hash"],
        '<td class="number">1,000</td>',
    ):
        assert words in page
    assert not re.search(r"<style| style=|<script>|\son\w+=", page)
    assert "unsafe" not in answer["Content-Security-Policy"]


def test_a_report_with_every_kind_of_fault_is_shown(admin: Client, verified: Dataset) -> None:
    worse = verified.quality
    worse["ok"], worse["hash"], worse["instruments"] = False, None, []
    row = {"record": 7, "bid_px": "<1>"}
    worse["violation"] = {"book": "both", "kind": "bbo", "record": 7, "text": "<b>", "kernel": row, "reference": None}
    Dataset.objects.update(quality=worse)
    page = admin.get(f"/admin/replay/dataset/{verified.pk}/change/").content.decode()
    assert "FAILED</strong> made.dbn: the books differ at record 7: &lt;b&gt;" in page
    assert "record 7, bid_px &lt;1&gt;" in page


@pytest.mark.parametrize(
    ("quality", "state", "words"),
    [
        (None, "ready", "Not made yet"),
        ({"version": VERSION - 1, "ok": True}, "ready", "Not made yet"),
        ({"ok": True}, "ready", "Not made yet"),
        ({"version": VERSION, "error": "<b>"}, "ready", "No report</strong> &lt;b&gt;"),
        (None, "failed", "Only a file that is ready"),
    ],
)
def test_a_dataset_without_a_report_says_why(
    admin: Client, verified: Dataset, quality: object, state: str, words: str
) -> None:
    Dataset.objects.update(quality=quality, state=state)
    assert words in admin.get(f"/admin/replay/dataset/{verified.pk}/change/").content.decode()


def test_verifying_asks_a_worker_for_each_file_that_is_ready(
    admin: Client, verified: Dataset, redis_client: redis.Redis
) -> None:
    failed = Dataset.objects.create(name="bad.dbn", path="bad.dbn", state="failed")
    assert "1 files are being verified" in act(admin, "dataset", "verify", verified.pk, failed.pk)
    (message,) = [json.loads(text) for text in redis_client.lrange("celery", 0, -1)]
    assert message["headers"]["task"] == "replay.tasks.verify_dataset"
    assert message["headers"]["argsrepr"] == f"[{verified.pk}, '{verified.sha256}', True]"
    assert "0 files are being verified; their rows will tell. 1 were asked for already." in act(
        admin, "dataset", "verify", verified.pk
    )
    assert redis_client.llen("celery") == 1


@pytest.mark.parametrize(
    ("codename", "may"), [("view_dataset", False), ("change_dataset", True), ("control_replay", True)]
)
def test_who_may_only_look_asks_for_no_report(
    verified: Dataset, redis_client: redis.Redis, codename: str, may: bool
) -> None:
    vera = User.objects.create_user("vera", is_staff=True)
    vera.user_permissions.set([*_permissions("view_dataset"), *_permissions(codename)])
    client = Client()
    client.force_login(vera)
    assert ('value="verify"' in client.get("/admin/replay/dataset/").content.decode()) is may
    act(client, "dataset", "verify", verified.pk)
    assert redis_client.llen("celery") == int(may)


def _permissions(codename: str) -> list[object]:

    return list(Permission.objects.filter(codename=codename))


def schedule_form(replay: Replay, **changed: object) -> dict[str, object]:
    at = timezone.now() + timedelta(hours=1)
    return {
        "dataset": replay.dataset_id,
        "start_at_0": f"{at:%Y-%m-%d}",
        "start_at_1": f"{at:%H:%M:%S}",
        "pace": "10x",
        "max_msgs": -1,
        **changed,
    }


def test_a_replay_is_scheduled_and_cancelled(admin: Client, alice: User, replay: Replay) -> None:
    page = admin.post("/admin/replay/scheduledreplay/add/", schedule_form(replay, loop="on"), follow=True)
    assert "was added successfully" in page.content.decode()
    row = ScheduledReplay.objects.get()
    assert (row.dataset, row.pace, row.loop, row.requested_by) == (replay.dataset, {"market_time": 10}, True, alice)
    assert "1 cancelled" in act(admin, "scheduledreplay", "cancel", row.pk)
    assert ScheduledReplay.objects.get().state == "cancelled"
    assert "0 cancelled" in act(admin, "scheduledreplay", "cancel", row.pk)
    assert admin.post(f"/admin/replay/scheduledreplay/{row.pk}/change/", schedule_form(replay)).status_code == 403


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"pace": "fast"}, "expected a whole number of records a second"),
        ({"pace": "20000x"}, "expected &quot;max&quot;"),
        ({"start_at_0": "2020-01-01"}, "expected a time to come"),
        ({"skip_idle_s": "-1"}, "expected seconds of market time"),
    ],
)
def test_a_schedule_that_cannot_be_is_not_made(
    admin: Client, replay: Replay, changed: dict[str, object], reason: str
) -> None:
    page = admin.post("/admin/replay/scheduledreplay/add/", schedule_form(replay, **changed))
    assert reason in page.content.decode()
    assert not ScheduledReplay.objects.exists()


def test_who_may_only_look_schedules_nothing(replay: Replay) -> None:
    vera = User.objects.create_user("vera", is_staff=True)
    vera.user_permissions.set([*_permissions("view_scheduledreplay"), *_permissions("add_scheduledreplay")])
    client = Client()
    client.force_login(vera)
    assert client.get("/admin/replay/scheduledreplay/").status_code == 200
    assert client.get("/admin/replay/scheduledreplay/add/").status_code == 403


def test_the_lease_is_shown_and_not_touched(admin: Client) -> None:
    lease.take("main", "host:17:x")
    assert "host:17:x" in admin.get("/admin/replay/feedlease/").content.decode()
    assert admin.post("/admin/replay/feedlease/main/delete/", {"post": "yes"}).status_code == 403
