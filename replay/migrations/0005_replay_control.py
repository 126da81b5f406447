"""Desired state, window and place of a replay; the lease, scheduled replays, and answers that are kept."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

COUNTED = """
UPDATE replay_replay SET
    published = replay_replay.position,
    loops = CASE WHEN replay_replay.loop THEN replay_replay.position / dataset.records ELSE 0 END,
    position = CASE WHEN replay_replay.loop THEN replay_replay.position % dataset.records ELSE replay_replay.position END
FROM replay_dataset AS dataset
WHERE dataset.id = replay_replay.dataset_id AND dataset.records > 0
"""
"""Until now position counted what was published, over all rounds; now it is the place in the file."""


class Migration(migrations.Migration):
    dependencies = [
        ("replay", "0004_dataset_indexed_percent"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="FeedLease",
            fields=[
                ("feed", models.CharField(max_length=40, primary_key=True, serialize=False)),
                (
                    "owner",
                    models.CharField(help_text="host:process id:a name that no other process has.", max_length=200),
                ),
                ("generation", models.BigIntegerField(default=0, help_text="How often the feed has changed hands.")),
                ("taken_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="IdempotentRequest",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("caller", models.CharField(max_length=40)),
                ("key", models.CharField(max_length=200)),
                ("digest", models.CharField(help_text="SHA-256 of what was asked.", max_length=64)),
                (
                    "claimed_at",
                    models.DateTimeField(
                        help_text="When somebody began to carry it out; null = nobody does.", null=True
                    ),
                ),
                (
                    "status",
                    models.PositiveSmallIntegerField(help_text="The HTTP status answered; null = none yet.", null=True),
                ),
                ("answer", models.JSONField(null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True, db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name="ScheduledReplay",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("start_at", models.DateTimeField()),
                ("pace", models.JSONField(help_text='{"records_per_s": N}, {"market_time": X} or "max".')),
                ("skip_idle_s", models.FloatField(blank=True, null=True)),
                ("loop", models.BooleanField(default=False)),
                ("max_msgs", models.BigIntegerField(default=-1, help_text="Stop after so many records; -1 = all.")),
                ("window_from", models.JSONField(blank=True, null=True)),
                ("window_to", models.JSONField(blank=True, null=True)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("started", "Started"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                        ],
                        default="waiting",
                        max_length=10,
                    ),
                ),
                (
                    "claimed_at",
                    models.DateTimeField(editable=False, help_text="When a worker began to start it.", null=True),
                ),
                ("error", models.TextField(blank=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "ordering": ["-start_at"],
            },
        ),
        migrations.AddField(
            model_name="replay",
            name="desired_state",
            field=models.CharField(
                choices=[("REPLAYING", "Replaying"), ("PAUSED", "Paused"), ("STOPPED", "Stopped")],
                default="REPLAYING",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="replay",
            name="loops",
            field=models.BigIntegerField(default=0, help_text="Rounds completed."),
        ),
        migrations.AddField(
            model_name="replay",
            name="published",
            field=models.BigIntegerField(default=0, help_text="Records published, over all rounds and jumps."),
        ),
        migrations.AddField(
            model_name="replay",
            name="request_id",
            field=models.CharField(
                editable=False, help_text="What asked for it: asked twice, made once.", max_length=60, null=True
            ),
        ),
        migrations.AddField(
            model_name="replay",
            name="skip_idle_s",
            field=models.FloatField(help_text="Market time without records that is longer is passed over.", null=True),
        ),
        migrations.AddField(
            model_name="replay",
            name="window_from",
            field=models.JSONField(help_text="Where each round begins; null = the first record.", null=True),
        ),
        migrations.AddField(
            model_name="replay",
            name="window_to",
            field=models.JSONField(help_text="Where each round ends; null = the last record.", null=True),
        ),
        migrations.AlterField(
            model_name="replay",
            name="pace",
            field=models.JSONField(help_text='{"records_per_s": N}, {"market_time": X} or "max".'),
        ),
        migrations.AlterField(
            model_name="replay",
            name="position",
            field=models.BigIntegerField(help_text="In the file; null until the streamer has begun.", null=True),
        ),
        migrations.AddConstraint(
            model_name="replay",
            constraint=models.UniqueConstraint(fields=("request_id",), name="one_replay_per_request"),
        ),
        migrations.AddConstraint(
            model_name="idempotentrequest",
            constraint=models.UniqueConstraint(fields=("caller", "key"), name="one_request_per_key"),
        ),
        migrations.AddField(
            model_name="scheduledreplay",
            name="dataset",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="scheduled", to="replay.dataset"
            ),
        ),
        migrations.AddField(
            model_name="scheduledreplay",
            name="replay",
            field=models.ForeignKey(
                editable=False, null=True, on_delete=django.db.models.deletion.SET_NULL, to="replay.replay"
            ),
        ),
        migrations.AddField(
            model_name="scheduledreplay",
            name="requested_by",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.SET_NULL, to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddIndex(
            model_name="scheduledreplay",
            index=models.Index(condition=models.Q(("state", "waiting")), fields=["start_at"], name="scheduled_waiting"),
        ),
        migrations.RunSQL(COUNTED, migrations.RunSQL.noop),
    ]
