"""Datasets, replays and keys in the admin: facts to read, and the few verbs that belong here. Floor 4."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from pydantic import ValidationError

from orderbook.book.timestamp import format_ns
from orderbook.quality.tables import headline, tables
from replay import control, runs, schedule
from replay.auth import CONTROL_PERMISSION
from replay.bodies import StartBody, pace_of_text
from replay.keys import SCOPES, create_key
from replay.models import ApiKey, Dataset, FeedLease, Replay, ScheduledReplay

if TYPE_CHECKING:  # the stubs are generic, the classes are not
    ModelAdmin = admin.ModelAdmin[Any]
    ModelForm = forms.ModelForm[Any]
else:
    ModelAdmin, ModelForm = admin.ModelAdmin, forms.ModelForm


class ReadOnlyAdmin(ModelAdmin):
    """Rows that the system writes and people look at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Dataset)
class DatasetAdmin(ReadOnlyAdmin):
    list_display = [
        *("name", "state", "quality_verdict", "index", "format", "records", "events", "first_event", "last_event"),
        "registered_at",
    ]
    list_filter = ["state", "format", "venue_dataset", "instruments"]
    search_fields = ["name", "path", "error"]
    actions = ["rescan", "verify"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Dataset]:
        return Dataset.objects.with_verdict()

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        dataset = self.get_object(request, object_id)
        report = dataset and dataset.report
        shown: dict[str, Any] = {"report": report}
        if report and "error" not in report:
            shown |= {"headline": headline(report), "tables": tables(report, len(report["instruments"]))}
        return super().change_view(request, object_id, form_url, {"quality": shown, **(extra_context or {})})

    @admin.display(description="quality", ordering="quality_ok")
    def quality_verdict(self, dataset: Any) -> str:
        if dataset.quality_error is not None:
            return "no report"
        if dataset.quality_ok is None:
            return "not yet" if dataset.state == Dataset.State.READY else "-"
        if not dataset.quality_ok:
            return "FAILED"
        return f"{dataset.quality_anomalies:,} anomalies" if dataset.quality_anomalies else "OK"

    @admin.display(ordering="indexed_percent")
    def index(self, dataset: Dataset) -> str:
        if dataset.state != Dataset.State.READY:
            return "-"
        return "ready" if dataset.indexed_percent == 100 else f"{dataset.indexed_percent} %"

    @admin.display(description="first event", ordering="first_ts_event")
    def first_event(self, dataset: Dataset) -> str:
        return _shown(dataset.first_ts_event)

    @admin.display(description="last event", ordering="last_ts_event")
    def last_event(self, dataset: Dataset) -> str:
        return _shown(dataset.last_ts_event)

    @admin.action(description="Read the selected files again", permissions=["view"])
    def rescan(self, request: HttpRequest, chosen: QuerySet[Dataset]) -> None:
        try:
            control.rescan([dataset.pk for dataset in chosen])
        except control.ControlUnreachable as error:
            self.message_user(request, f"Nothing is read again: {error}", messages.ERROR)
            return
        self.message_user(request, f"{len(chosen)} files are being read again; their rows will tell.")

    @admin.action(description="Verify the selected files", permissions=["verify"])
    def verify(self, request: HttpRequest, chosen: QuerySet[Dataset]) -> None:
        ready = chosen.filter(state=Dataset.State.READY)
        try:
            asked = control.verify(ready)
        except control.ControlUnreachable as error:
            self.message_user(request, f"Nothing is verified: {error}", messages.ERROR)
            return
        waiting = f" {len(ready) - asked} were asked for already." if asked < len(ready) else ""
        self.message_user(request, f"{asked} files are being verified; their rows will tell.{waiting}")

    def has_verify_permission(self, request: HttpRequest) -> bool:
        """A report costs a worker minutes: who may only look may not ask for one."""
        return any(map(request.user.has_perm, (CONTROL_PERMISSION, "replay.change_dataset")))


@admin.register(Replay)
class ReplayAdmin(ReadOnlyAdmin):
    list_display = [
        *("id", "dataset", "state", "desired_state", "pace", "position", "event", "published", "requested_by"),
        *("created_at", "ended_at"),
    ]
    list_filter = ["state", "dataset", "requested_by", "created_at"]
    list_select_related = ["dataset", "requested_by"]
    search_fields = ["dataset__name", "error"]
    actions = ["stop"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Replay]:
        return super().get_queryset(request).defer("dataset__quality")  # a list needs the dataset's name

    @admin.display(description="market time", ordering="position_ts_event")
    def event(self, replay: Replay) -> str:
        return _shown(replay.position_ts_event)

    @admin.action(description="Stop the running replay", permissions=["control"])
    def stop(self, request: HttpRequest, chosen: QuerySet[Replay]) -> None:
        running = runs.active_run()
        if running is None or not chosen.filter(pk=running.pk).exists():
            self.message_user(request, "None of these is running.", messages.WARNING)
            return
        try:
            answer = control.stop()
        except (control.ControlError, control.ControlUnreachable) as error:
            self.message_user(request, f"Cannot stop {running}: {error}", messages.ERROR)
            return
        self.message_user(request, f"#{running.pk} is {answer['state']}.")

    def has_control_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(CONTROL_PERMISSION))


class ScheduledReplayForm(ModelForm):
    """What the schedule takes over REST, without the places: a whole file, or a loop over it."""

    pace = forms.CharField(help_text='Records a second, "max", or "10x" as recorded.', initial="1000")

    class Meta:
        model = ScheduledReplay
        fields = ["dataset", "start_at", "pace", "skip_idle_s", "loop", "max_msgs"]

    def clean(self) -> dict[str, Any]:
        """Check it as REST does."""
        found: dict[str, Any] = super().clean() or {}
        if not self.errors:
            try:
                found["asked"] = _start_of(found)
                control.scheduled_request(found["asked"], found["start_at"], requested_by=None)
            except ValidationError as error:
                fault = error.errors()[0]
                raise forms.ValidationError(f"{fault['loc'][0]}: {fault['msg']}") from error
            except (ValueError, control.ControlError) as error:
                raise forms.ValidationError(str(error)) from error
        return found


def _start_of(found: dict[str, Any]) -> control.Start:
    """Return what a filled form asks for. Raises ValidationError, ValueError."""
    return StartBody.model_validate(
        {
            "dataset": found["dataset"].pk,
            "pace": pace_of_text(found["pace"]),
            "skip_idle_s": found["skip_idle_s"],
            "loop": found["loop"],
            "max_msgs": found["max_msgs"],
        }
    ).asked()


@admin.register(ScheduledReplay)
class ScheduledReplayAdmin(ModelAdmin):
    form = ScheduledReplayForm
    list_display = ["start_at", "dataset", "state", "pace", "loop", "replay", "requested_by", "error"]
    list_filter = ["state", "dataset", "requested_by"]
    list_select_related = ["dataset", "requested_by", "replay__dataset"]
    actions = ["cancel"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(CONTROL_PERMISSION))

    def has_change_permission(self, request: HttpRequest, obj: ScheduledReplay | None = None) -> bool:
        return False  # cancel it and make another

    def save_model(self, request: HttpRequest, obj: ScheduledReplay, form: Any, change: bool) -> None:
        made = control.schedule(form.cleaned_data["asked"], obj.start_at, cast(User, request.user))
        obj.pk = made.pk

    @admin.action(description="Cancel the selected, as far as they wait", permissions=["add"])
    def cancel(self, request: HttpRequest, chosen: "QuerySet[ScheduledReplay]") -> None:
        self.message_user(request, f"{schedule.cancel(chosen)} cancelled.")


@admin.register(FeedLease)
class FeedLeaseAdmin(ReadOnlyAdmin):
    list_display = ["feed", "owner", "generation", "taken_at", "expires_at"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # it would let two streamers publish one feed


def _scopes_field(scopes: Iterable[str]) -> forms.MultipleChoiceField:
    choices = [(scope, scope) for scope in scopes]
    return forms.MultipleChoiceField(choices=choices, widget=forms.CheckboxSelectMultiple, initial=["read"])


class ApiKeyForm(ModelForm):
    scopes = _scopes_field(SCOPES)

    class Meta:
        model = ApiKey
        fields = ["owner", "name", "scopes", "expires_at"]


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    form = ApiKeyForm
    list_display = ["name", "bucket_id", "owner", "scopes", "created_at", "last_used_at", "expires_at", "revoked_at"]
    list_filter = ["owner", "created_at", "revoked_at"]
    search_fields = ["name", "bucket_id", "owner__username"]
    actions = ["revoke"]

    def get_form(self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any) -> Any:
        """Offer nobody a key that may do more than he himself: only a superuser makes keys for others."""
        form = super().get_form(request, obj, change, **kwargs)
        if not request.user.has_perm(CONTROL_PERMISSION) and "scopes" in form.base_fields:
            form.base_fields["scopes"] = _scopes_field(scope for scope in SCOPES if scope != "control")
        return form

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "owner" and not cast(User, request.user).is_superuser:
            kwargs |= {"queryset": User.objects.filter(pk=cast(User, request.user).pk), "initial": request.user.pk}
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False  # what a key may do is fixed when it is made; take it back and make another

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        made, text = create_key(obj.owner, obj.name, form.cleaned_data["scopes"], obj.expires_at)
        obj.pk = made.pk
        obj.bucket_id = made.bucket_id
        self.message_user(request, f"The key, shown this once: {text}", messages.WARNING)

    @admin.action(description="Revoke the selected keys", permissions=["delete"])
    def revoke(self, request: HttpRequest, chosen: QuerySet[ApiKey]) -> None:
        count = chosen.filter(revoked_at=None).update(revoked_at=timezone.now())
        self.message_user(request, f"{count} keys revoked.")


def _shown(ts_event: int | None) -> str:
    return "-" if ts_event is None else format_ns(ts_event)
