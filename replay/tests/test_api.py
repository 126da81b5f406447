"""The REST door: who may pass, and what is said to those who ask wrongly."""

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from orderbook.quality.report import VERSION
from replay.bodies import PaceBody, SeekBody, StartBody
from replay.keys import create_key
from replay.models import ApiKey, Dataset, IdempotentRequest

START, DATASETS = "/api/control/replay/start", "/api/datasets"
INVALID = {"rate": 5000}  # who is let in hears that the rate is wrong, and nothing starts
PASSED_READ, PASSED_CONTROL = 200, 400

pytestmark = pytest.mark.django_db


@pytest.fixture
def vera() -> User:
    user = User.objects.create_user("vera", password="a long enough password")
    user.groups.add(Group.objects.get(name="viewer"))
    return user


@pytest.fixture
def otto() -> User:
    user = User.objects.create_user("otto", password="a long enough password")
    user.groups.add(Group.objects.get(name="operator"))
    return user


def session_of(user: User) -> Client:
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    return client


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def basic(key: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


def statuses(client: Client, headers: dict[str, str] | None = None) -> tuple[int, int]:
    """Return what reading and controlling answer."""
    post = client.post(START, INVALID, content_type="application/json", headers=headers)
    return client.get(DATASETS, headers=headers).status_code, post.status_code


def test_strangers_neither_read_nor_control() -> None:
    assert statuses(Client(enforce_csrf_checks=True)) == (401, 401)


def test_a_viewer_reads_only(vera: User) -> None:
    client = session_of(vera)
    assert statuses(client, {"x-csrftoken": _csrf(client)}) == (PASSED_READ, 403)


def test_an_operator_controls_with_the_csrf_token_and_not_without(otto: User) -> None:
    client = session_of(otto)
    assert statuses(client) == (PASSED_READ, 403)
    assert statuses(client, {"x-csrftoken": _csrf(client)}) == (PASSED_READ, PASSED_CONTROL)


@pytest.mark.parametrize("header", [bearer, basic])
@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        (["read"], (PASSED_READ, 403)),
        (["control"], (403, PASSED_CONTROL)),
        (["read", "control"], (PASSED_READ, PASSED_CONTROL)),
        (["feed"], (403, 403)),
    ],
)
def test_a_key_opens_what_its_scopes_name(
    otto: User, header: Any, scopes: list[str], expected: tuple[int, int]
) -> None:
    _, key = create_key(otto, "bot", scopes)
    assert statuses(Client(enforce_csrf_checks=True), header(key)) == expected


@pytest.mark.parametrize("header", [bearer, basic])
def test_a_key_never_may_what_its_owner_may_not(vera: User, otto: User, header: Any) -> None:
    _, of_a_viewer = create_key(vera, "bot", ["read", "control"])
    _, of_an_operator = create_key(otto, "bot", ["read", "control"])
    assert statuses(Client(), header(of_a_viewer)) == (PASSED_READ, 403)
    assert statuses(Client(), header(of_an_operator)) == (PASSED_READ, PASSED_CONTROL)
    otto.groups.clear()
    assert statuses(Client(), header(of_an_operator)) == (PASSED_READ, 403)
    for owner, key in ((vera, of_a_viewer), (otto, of_an_operator)):
        owner.is_active = False
        owner.save()
        assert statuses(Client(), header(key)) == (401, 401)


@pytest.mark.parametrize("header", [bearer, basic])
def test_expired_revoked_and_wrong_keys_open_nothing(vera: User, header: Any) -> None:
    _, expired = create_key(vera, "old", ["read", "control"], expires_at=timezone.now() - timedelta(days=1))
    row, revoked = create_key(vera, "lost", ["read", "control"])
    ApiKey.objects.filter(pk=row.pk).update(revoked_at=timezone.now())
    for key in (expired, revoked, "db-" + "x" * 29, "db-" + "x" * 28 + ("\x00" if header is basic else "!"), ""):
        assert statuses(Client(), header(key)) == (401, 401)


def test_public_read_opens_the_read_side_only(settings: Settings) -> None:
    settings.PUBLIC_READ = True
    assert statuses(Client()) == (PASSED_READ, 401)


@pytest.fixture
def operator(otto: User) -> Client:
    client = Client()
    client.force_login(otto)
    return client


def refusal(client: Client, body: object, path: str = START) -> tuple[int, str]:
    text = body if isinstance(body, str) else json.dumps(body)
    answer = client.post(path, text, content_type="application/json")
    return answer.status_code, answer.json()["detail"]


def test_a_wrong_rate_is_answered_word_for_word(operator: Client) -> None:
    expected = "Invalid rate 5000. Allowed: [200, 1000, 10000, 50000, 500000]"
    assert refusal(operator, {"rate": 5000}) == (400, expected)
    assert refusal(operator, {"rate": 5000}, "/api/control/replay/pace") == (400, expected)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"rate": 200, "pace": "max"}, "Give rate or pace, not both."),
        (
            {"pace": "fast"},
            'pace: Value error, expected "max", {"records_per_s": 1 to 1000000000} or {"market_time": 0.1 to 10000}, '
            'found "fast"',
        ),
        ({"pace": {"market_time": 0.09}}, "pace"),
        ({"pace": {"market_time": 1, "records_per_s": 1}}, "pace"),
        ('{"pace": {"market_time": NaN}}', "pace"),
        ({"skip_idle_s": 0}, "skip_idle_s: Value error, expected seconds of market time, above 0 and at most 86400"),
        ({"from": {}}, "from: Value error, expected exactly one of record, ts, fraction, found none"),
        ({"to": {"record": 1, "fraction": 0.5}}, "to: Value error, expected exactly one of record, ts, fraction"),
        ({"from": {"next": "trade"}}, "next"),
        ({"from": {"ts": "yesterday"}}, "ts: Value error, expected a time such as 2025-09-24T19:30:00.123Z"),
        ({"from": {"ts": str(2**63)}}, "ts: Value error, expected nanoseconds below 2^63"),
        ({"to": {"record": -1}}, "record"),
        ({"to": {"fraction": 1.01}}, "fraction"),
        ({"pace": {"records_per_s": 0}}, "records_per_s"),
        ({"pace": {"records_per_s": 10**10}}, "records_per_s"),
        ({"rate": "200"}, "rate"),
        ({"rate": True}, "rate"),
        ({"max_msgs": -2}, "max_msgs"),
        ({"max_msgs": 2**70}, "max_msgs"),
        ({"loop": "yes"}, "loop"),
        (
            {"dataset": "a\x00b"},
            "dataset: Value error, expected the name of a dataset (at most 200 characters, no control characters)"
            ' or its id, found "a\\u0000b"',
        ),
        ({"dataset": "a\n"}, "dataset"),
        ({"dataset": "a" * 201}, "dataset"),
        ({"dataset": "\ud800"}, "dataset"),
        ({"dataset": -1}, "dataset"),
        ({"dataset": True}, "dataset"),
        ({"dataset": 10**4000}, "dataset"),
        ({"speed": 3}, "speed"),
        ("{not json", ""),
        ("[]", ""),
    ],
)
def test_a_wrong_body_is_refused_with_the_field(operator: Client, body: object, reason: str) -> None:
    status, detail = refusal(operator, body)
    assert status == 400
    assert reason in detail


def test_an_unknown_dataset_is_404_and_a_broken_one_400(operator: Client) -> None:
    assert refusal(operator, {"dataset": "nothing.dbn"}) == (404, "No dataset 'nothing.dbn'")
    assert refusal(operator, {"dataset": 12345}) == (404, "No dataset '12345'")
    assert refusal(operator, {}) == (404, "No dataset is ready: put a file into DATA_DIR and run scandatasets.")
    Dataset.objects.create(name="broken.csv", path="/b", state="failed", error="line 2: expected a price")
    assert refusal(operator, {"dataset": "broken.csv"})[0] == 400


def test_a_start_without_a_body_takes_the_defaults(operator: Client) -> None:
    answer = operator.generic("POST", START)
    assert (answer.status_code, answer.json()["detail"][:19]) == (404, "No dataset is ready")


def test_a_pace_is_asked_for(operator: Client) -> None:
    assert refusal(operator, {}, "/api/control/replay/pace") == (400, "Give rate or pace.")


SEEK, STEP, SCHEDULE = (f"/api/control/replay/{name}" for name in ("seek", "step", "schedule"))
ONE_OF = "expected exactly one of record, ts, fraction, next, previous"


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        (SEEK, {}, f"{ONE_OF}, found none"),
        (SEEK, {"record": 1, "next": "trade"}, f"{ONE_OF}, found record, next"),
        (SEEK, {"record": None}, f"{ONE_OF}, found none"),
        (SEEK, {"record": True}, "record"),
        (SEEK, {"record": "5"}, "record"),
        (SEEK, {"record": 2**63}, "record"),
        (SEEK, {"ts": 1758742200000860311}, "ts"),
        (SEEK, {"ts": "2025-09-24T19:30:00"}, "expected a time such as"),
        (SEEK, {"ts": "-1"}, "expected a time such as"),
        (SEEK, {"ts": "9" * 10_000}, "expected nanoseconds below 2^63"),
        ('{"fraction": NaN}', {}, ""),
        (SEEK, {"previous": "anomaly"}, "previous"),
        (SEEK, {"next": "best"}, "next"),
        (STEP, {}, "unit"),
        (STEP, {"unit": "event", "by": 0}, "expected by to be above or below 0, found 0"),
        (STEP, {"unit": "event", "by": 1.5}, "by"),
        (STEP, {"unit": "event", "by": 10**10}, "by"),
        (STEP, {"unit": "furlong"}, "unit"),
        ("/api/control/replay/pace", {"skip_idle_s": 60}, "Give rate or pace."),
        (SCHEDULE, {}, "at"),
        (SCHEDULE, {"at": "tomorrow"}, "at: Value error, expected a time such as"),
        (SCHEDULE, {"at": "2025-09-24T19:30:00Z"}, "at: expected a time to come, found 2025-09-24T19:30:00Z."),
    ],
)
def test_a_wrong_place_step_or_time_is_refused_with_the_reason(
    operator: Client, path: str, body: object, reason: str
) -> None:
    if path.startswith("{"):
        path, body = SEEK, path
    status, detail = refusal(operator, body, path)
    assert status == 400
    assert reason in detail


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"record": 0}, {"record": 0}),
        ({"fraction": 1}, {"fraction": 1}),
        ({"fraction": 0.25}, {"fraction": 0.25}),
        ({"ts": "1758742200000860311"}, {"ts_ns": "1758742200000860311"}),
        ({"ts": "2025-09-24T19:30:00.000860311Z"}, {"ts_ns": "1758742200000860311"}),
        ({"ts": "2025-09-24T21:30:00.000860311+02:00"}, {"ts_ns": "1758742200000860311"}),
        ({"next": "anomaly"}, {"next": "anomaly"}),
        ({"previous": "bbo"}, {"previous": "bbo"}),
    ],
)
def test_places_reach_the_streamer_in_its_own_words(body: object, place: object) -> None:
    assert SeekBody.model_validate(body).to() == place


def test_a_start_carries_its_window_and_its_idle_time() -> None:
    body = {"from": {"ts": "2025-09-24T19:30:00Z"}, "to": {"fraction": 0.5}, "pace": {"market_time": 10}}
    asked = StartBody.model_validate({**body, "skip_idle_s": 60, "loop": True}).asked()
    assert (asked.window_from, asked.window_to) == ({"ts_ns": "1758742200000000000"}, {"fraction": 0.5})
    assert (asked.pace, asked.skip_idle_s, asked.loop) == ({"market_time": 10}, 60, True)


def test_a_change_of_pace_leaves_the_idle_time_as_it_is_unless_it_names_it() -> None:
    assert PaceBody.model_validate({"rate": 200}).args() == {"pace": {"records_per_s": 200}}
    assert PaceBody.model_validate({"pace": "max", "skip_idle_s": None}).args() == {"pace": "max", "skip_idle_s": None}


def keyed(client: Client, body: object, key: str, path: str = START) -> tuple[int, Any]:
    answer = client.post(path, body, content_type="application/json", headers={"idempotency-key": key})
    return answer.status_code, answer.json()


def test_a_request_with_a_key_gets_the_same_answer_though_the_world_has_changed(operator: Client, vera: User) -> None:
    unknown = (404, {"detail": "No dataset 'late.dbn'"})
    assert keyed(operator, {"dataset": "late.dbn"}, "k1") == unknown
    Dataset.objects.create(name="late.dbn", path="/late", state="failed", error="line 2")
    assert keyed(operator, {"dataset": "late.dbn"}, "k1") == unknown
    assert keyed(operator, {"dataset": "late.dbn"}, "k2")[0] == 400
    status, answer = keyed(operator, {"dataset": "other.dbn"}, "k1")
    assert (status, answer) == (422, {"detail": "Idempotency-Key: this key was sent with another request before."})
    _, api_key = create_key(User.objects.get(username="otto"), "bot", ["control"])
    answer = Client().post(START, {"dataset": "late.dbn"}, headers={**bearer(api_key), "idempotency-key": "k1"})
    assert answer.status_code == 400, "another caller's key is another key"


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_a_key_that_is_none_is_refused(operator: Client, key: str) -> None:
    expected = "Idempotency-Key: expected 1 to 200 printable characters."
    assert keyed(operator, {"dataset": "a"}, key) == (400, {"detail": expected})
    assert not IdempotentRequest.objects.exists()


def test_a_replay_is_scheduled_once_listed_and_cancelled_once(operator: Client, vera: User) -> None:
    Dataset.objects.create(name="a.dbn", path="/a", state="ready", records=7)
    at = timezone.now() + timedelta(hours=1)
    body = {"dataset": "a.dbn", "at": at.isoformat(), "pace": "max", "from": {"record": 5}, "loop": True}
    status, made = keyed(operator, body, "k", SCHEDULE)
    assert (status, made["state"], made["at"], made["requested_by"]) == (201, "waiting", at.isoformat(), "otto")
    assert (made["dataset"], made["pace"], made["window_from"], made["loop"]) == ("a.dbn", "max", {"record": 5}, True)
    assert keyed(operator, body, "k", SCHEDULE) == (201, made)
    assert operator.get(SCHEDULE).json() == [made]
    assert session_of(vera).get(SCHEDULE).status_code == 200
    viewer = session_of(vera)
    assert viewer.delete(f"{SCHEDULE}/{made['id']}", headers={"x-csrftoken": _csrf(viewer)}).status_code == 403
    cancelled = operator.delete(f"{SCHEDULE}/{made['id']}")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    again = operator.delete(f"{SCHEDULE}/{made['id']}")
    assert (again.status_code, again.json()["detail"][:34]) == (409, "Only one that waits can be cancell")
    assert operator.delete(f"{SCHEDULE}/99").status_code == 404
    assert refusal(operator, {**body, "dataset": "nothing"}, SCHEDULE)[0] == 404


def test_datasets_are_listed_with_what_is_wrong(operator: Client) -> None:
    Dataset.objects.create(
        name="a.dbn", path="/a", state="ready", format="dbn", records=7, first_ts_event=1_758_742_200_000_860_311
    )
    Dataset.objects.create(name="b.csv", path="/b", state="failed", error="line 2: expected a price")
    good, broken = operator.get(DATASETS).json()
    assert (good["name"], good["records"], good["first_ts"]) == ("a.dbn", 7, "2025-09-24T19:30:00.000860311Z")
    assert good["last_ts"] is None
    assert (broken["state"], broken["error"]) == ("failed", "line 2: expected a price")
    assert "path" not in good


def test_datasets_are_listed_with_what_their_quality_reports_come_to(operator: Client) -> None:
    report = {"version": VERSION, "ok": True, "anomaly_count": 3, "hash": "0f" * 16, "records": 9}
    Dataset.objects.create(name="a.dbn", path="/a", state="ready", quality=report)
    Dataset.objects.create(name="b.dbn", path="/b", state="ready", quality={**report, "ok": False, "hash": None})
    Dataset.objects.create(name="c.dbn", path="/c", state="ready")
    Dataset.objects.create(name="d.dbn", path="/d", state="ready", quality={**report, "version": VERSION - 1})
    Dataset.objects.create(name="e.dbn", path="/e", state="ready", quality={"version": VERSION, "error": "why"})
    assert [(dataset["quality"], dataset["quality_error"]) for dataset in operator.get(DATASETS).json()] == [
        ({"ok": True, "anomalies": 3, "hash": "0f" * 16}, ""),
        ({"ok": False, "anomalies": 3, "hash": None}, ""),
        (None, ""),
        (None, ""),
        (None, "why"),
    ]


def _csrf(client: Client) -> str:
    """Return a token as the page has it."""
    from django.middleware.csrf import _get_new_csrf_string

    client.cookies["csrftoken"] = token = _get_new_csrf_string()
    return token
