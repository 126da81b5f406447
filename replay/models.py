"""What is replayed, by whom, and the keys that open the feed: Dataset, Replay, ApiKey. Floor 2."""

from typing import cast

from django.conf import settings
from django.db import models

from orderbook.quality.report import VERSION, Failure, Report
from replay.streamer.messages import ACTIVE_STATES, ReplayState


class DatasetQuerySet(models.QuerySet["Dataset"]):
    """Datasets with what lists need."""

    def with_verdict(self) -> "DatasetQuerySet":
        """Leave the report where it is, and add what it comes to: quality_ok, _anomalies, _hash; or quality_error.

        A report has hundreds of lines; a list shows three words of it. All are None where there is none.
        """
        return self.defer("quality").annotate(
            quality_ok=_of_report("ok"),
            quality_anomalies=_of_report("anomaly_count"),
            quality_hash=_of_report("hash"),
            quality_error=_of_report("error"),
        )

    def without_report(self) -> "DatasetQuerySet":
        """Leave those that are ready and have neither a report nor a reason why there is none."""
        has_one = models.Q(quality__isnull=False) & models.Q(quality__contains={"version": VERSION})
        return self.filter(~has_one, state=Dataset.State.READY)


def _of_report(name: str) -> models.Case:
    """Return one word of a report, None where the report is of another version than ours, or is none."""
    return models.Case(models.When(quality__contains={"version": VERSION}, then=models.F(f"quality__{name}")))


class Dataset(models.Model):
    """A recorded file, and what was found in it when it was registered."""

    class State(models.TextChoices):
        REGISTERING = "registering"
        READY = "ready"
        FAILED = "failed"

    name = models.CharField(max_length=200, unique=True)
    path = models.CharField(max_length=1000)
    state = models.CharField(max_length=12, choices=State, default=State.REGISTERING)
    error = models.TextField(blank=True, help_text="Why the file could not be registered: where, expected, found.")
    format = models.CharField(max_length=10, blank=True)
    venue_dataset = models.CharField(max_length=16, blank=True, help_text="The vendor's code, such as GLBX.MDP3.")
    sha256 = models.CharField(max_length=64, blank=True)
    size_bytes = models.BigIntegerField(default=0)
    records = models.BigIntegerField(default=0)
    events = models.BigIntegerField(default=0)
    first_ts_event = models.BigIntegerField(null=True)
    last_ts_event = models.BigIntegerField(null=True)
    instruments = models.ManyToManyField("history.Instrument", blank=True, related_name="datasets")
    quality = models.JSONField(
        null=True, editable=False, help_text="The quality report of the content that sha256 names; null until made."
    )
    indexed_percent = models.PositiveSmallIntegerField(
        default=0, editable=False, help_text="How much of the index for seeking is made."
    )
    registered_at = models.DateTimeField(auto_now=True)

    objects = DatasetQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def report(self) -> Report | Failure | None:
        """The quality report, or why there is none; None before it was made by this version of the code."""
        is_ours = isinstance(self.quality, dict) and self.quality.get("version") == VERSION
        return cast(Report | Failure, self.quality) if is_ours else None


class Replay(models.Model):
    """One publication of a dataset: what was asked for, and what the streamer last said of it.

    At most one row of a feed is active; the constraint makes two starts at the same instant one replay.
    ``generation`` is the fence: a write that carries an older one changes nothing.
    """

    feed = models.CharField(max_length=40, default="main")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="replays")
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    state = models.CharField(max_length=10, choices=[(s.value, s.value) for s in ReplayState])
    generation = models.IntegerField(default=1)
    pace = models.JSONField(help_text='{"records_per_s": N} or "max".')
    loop = models.BooleanField(default=False)
    max_msgs = models.BigIntegerField(default=-1, help_text="Stop after so many records; -1 = all.")
    position = models.BigIntegerField(default=0, help_text="Records published.")
    position_ts_event = models.BigIntegerField(null=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    heartbeat_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["feed"],
                condition=models.Q(state__in=[s.value for s in ACTIVE_STATES]),
                name="one_active_replay_per_feed",
            ),
        ]
        permissions = [("control_replay", "Can start and stop replays")]

    def __str__(self) -> str:
        return f"#{self.pk} {self.dataset.name} {self.state}"


class ApiKey(models.Model):
    """A key for programs. Shown once; kept encrypted, because challenge-response needs the secret itself."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=80)
    bucket_id = models.CharField(max_length=5, db_index=True, help_text="The key's last five characters.")
    secret = models.BinaryField(editable=False)
    scopes = models.JSONField(default=list, help_text="Any of read, feed, control.")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} (…{self.bucket_id})"
