import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("history", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=80)),
                (
                    "bucket_id",
                    models.CharField(db_index=True, help_text="The key's last five characters.", max_length=5),
                ),
                ("secret", models.BinaryField()),
                ("scopes", models.JSONField(default=list, help_text="Any of read, feed, control.")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("last_used_at", models.DateTimeField(editable=False, null=True)),
                ("revoked_at", models.DateTimeField(blank=True, null=True)),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="api_keys",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "API key",
            },
        ),
        migrations.CreateModel(
            name="Dataset",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=200, unique=True)),
                ("path", models.CharField(max_length=1000)),
                (
                    "state",
                    models.CharField(
                        choices=[("registering", "Registering"), ("ready", "Ready"), ("failed", "Failed")],
                        default="registering",
                        max_length=12,
                    ),
                ),
                (
                    "error",
                    models.TextField(
                        blank=True, help_text="Why the file could not be registered: where, expected, found."
                    ),
                ),
                ("format", models.CharField(blank=True, max_length=10)),
                (
                    "venue_dataset",
                    models.CharField(blank=True, help_text="The vendor's code, such as GLBX.MDP3.", max_length=16),
                ),
                ("sha256", models.CharField(blank=True, max_length=64)),
                ("size_bytes", models.BigIntegerField(default=0)),
                ("records", models.BigIntegerField(default=0)),
                ("events", models.BigIntegerField(default=0)),
                ("first_ts_event", models.BigIntegerField(null=True)),
                ("last_ts_event", models.BigIntegerField(null=True)),
                ("registered_at", models.DateTimeField(auto_now=True)),
                ("instruments", models.ManyToManyField(blank=True, related_name="datasets", to="history.instrument")),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="Replay",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("feed", models.CharField(default="main", max_length=40)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("IDLE", "IDLE"),
                            ("STARTING", "STARTING"),
                            ("REPLAYING", "REPLAYING"),
                            ("PAUSED", "PAUSED"),
                            ("DONE", "DONE"),
                            ("STOPPED", "STOPPED"),
                            ("FAILED", "FAILED"),
                        ],
                        max_length=10,
                    ),
                ),
                ("generation", models.IntegerField(default=1)),
                ("pace", models.JSONField(help_text='{"records_per_s": N} or "max".')),
                ("loop", models.BooleanField(default=False)),
                ("max_msgs", models.BigIntegerField(default=-1, help_text="Stop after so many records; -1 = all.")),
                ("position", models.BigIntegerField(default=0, help_text="Records published.")),
                ("position_ts_event", models.BigIntegerField(null=True)),
                ("error", models.TextField(blank=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("heartbeat_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "dataset",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="replays", to="replay.dataset"
                    ),
                ),
                (
                    "requested_by",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.SET_NULL, to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={
                "ordering": ["-created_at"],
                "permissions": [("control_replay", "Can start and stop replays")],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("state__in", ["STARTING", "REPLAYING", "PAUSED"])),
                        fields=("feed",),
                        name="one_active_replay_per_feed",
                    )
                ],
            },
        ),
    ]
