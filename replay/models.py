"""What is replayed, by whom and when, who publishes it, and the keys that open the feed. Floor 2."""

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
    """One publication of a dataset: what is wanted of it, and what the streamer last said of it.

    At most one row of a feed is active; the constraint makes two starts at the same instant one replay.
    ``generation`` is the fence: a write that carries an older one changes nothing. ``desired_state`` is written
    before the streamer is asked, so that a worker that dies in between leaves behind what was wanted.
    """

    class Desired(models.TextChoices):
        REPLAYING = ReplayState.REPLAYING.value
        PAUSED = ReplayState.PAUSED.value
        STOPPED = ReplayState.STOPPED.value

    feed = models.CharField(max_length=40, default="main")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="replays")
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    request_id = models.CharField(
        max_length=60, null=True, editable=False, help_text="What asked for it: asked twice, made once."
    )
    state = models.CharField(max_length=10, choices=[(s.value, s.value) for s in ReplayState])
    desired_state = models.CharField(max_length=10, choices=Desired, default=Desired.REPLAYING)
    generation = models.IntegerField(default=1)
    pace = models.JSONField(help_text='{"records_per_s": N}, {"market_time": X} or "max".')
    skip_idle_s = models.FloatField(null=True, help_text="Market time without records that is longer is passed over.")
    loop = models.BooleanField(default=False)
    max_msgs = models.BigIntegerField(default=-1, help_text="Stop after so many records; -1 = all.")
    window_from = models.JSONField(null=True, help_text="Where each round begins; null = the first record.")
    window_to = models.JSONField(null=True, help_text="Where each round ends; null = the last record.")
    position = models.BigIntegerField(null=True, help_text="In the file; null until the streamer has begun.")
    position_ts_event = models.BigIntegerField(null=True)
    published = models.BigIntegerField(default=0, help_text="Records published, over all rounds and jumps.")
    loops = models.BigIntegerField(default=0, help_text="Rounds completed.")
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
            models.UniqueConstraint(fields=["request_id"], name="one_replay_per_request"),
        ]
        permissions = [("control_replay", "Can start and stop replays")]

    def __str__(self) -> str:
        return f"#{self.pk} {self.dataset.name} {self.state}"


class FeedLease(models.Model):
    """Which streamer publishes a feed, and until when; one row a feed. Its times are those of the database."""

    feed = models.CharField(max_length=40, primary_key=True)
    owner = models.CharField(max_length=200, help_text="host:process id:a name that no other process has.")
    generation = models.BigIntegerField(default=0, help_text="How often the feed has changed hands.")
    taken_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.feed}: {self.owner}"


class ScheduledReplay(models.Model):
    """A start that waits for its time."""

    class State(models.TextChoices):
        WAITING = "waiting"
        STARTED = "started"
        FAILED = "failed"
        CANCELLED = "cancelled"

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="scheduled")
    start_at = models.DateTimeField()
    pace = models.JSONField(help_text='{"records_per_s": N}, {"market_time": X} or "max".')
    skip_idle_s = models.FloatField(null=True, blank=True)
    loop = models.BooleanField(default=False)
    max_msgs = models.BigIntegerField(default=-1, help_text="Stop after so many records; -1 = all.")
    window_from = models.JSONField(null=True, blank=True)
    window_to = models.JSONField(null=True, blank=True)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    request_id = models.CharField(
        max_length=60, null=True, unique=True, editable=False, help_text="What asked for it: asked twice, made once."
    )
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    claimed_at = models.DateTimeField(null=True, editable=False, help_text="When a worker began to start it.")
    replay = models.ForeignKey(Replay, null=True, editable=False, on_delete=models.SET_NULL)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-start_at"]
        indexes = [
            models.Index(fields=["start_at"], condition=models.Q(state="waiting"), name="scheduled_waiting"),
        ]

    def __str__(self) -> str:
        return f"{self.dataset.name} at {self.start_at:%Y-%m-%d %H:%M:%S} UTC"


class IdempotentRequest(models.Model):
    """A request that carried an Idempotency-Key, and what was answered; the same key again gets the same answer."""

    caller = models.CharField(max_length=40)
    key = models.CharField(max_length=200)
    digest = models.CharField(max_length=64, help_text="SHA-256 of what was asked.")
    claimed_at = models.DateTimeField(null=True, help_text="When somebody began to carry it out; null = nobody does.")
    status = models.PositiveSmallIntegerField(null=True, help_text="The HTTP status answered; null = none yet.")
    answer = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["caller", "key"], name="one_request_per_key")]

    def __str__(self) -> str:
        return f"{self.caller} {self.key}"


class NamedRequest(models.Model):
    """A verb that was asked for under a name: which replay it meant, and what came of it.

    Asked for again it means that replay, and never one that came later.
    """

    name = models.CharField(max_length=60, primary_key=True)
    replay = models.ForeignKey(Replay, null=True, on_delete=models.SET_NULL, help_text="The one active then, if any.")
    failed = models.BooleanField(default=False, help_text="It was not carried out: whoever asks again tries again.")
    answer = models.JSONField(null=True, help_text="The status that the streamer answered.")
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    def __str__(self) -> str:
        return self.name


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
