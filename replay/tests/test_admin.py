"""The admin: facts to read, keys shown once, and verbs that ask for permission."""

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from replay import control
from replay.keys import create_key, find_key
from replay.models import ApiKey, Dataset, Replay

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
    monkeypatch.setattr(control, "ANSWER_WITHIN_S", 0.2)
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


def _permissions(codename: str) -> list[object]:
    from django.contrib.auth.models import Permission

    return list(Permission.objects.filter(codename=codename))
