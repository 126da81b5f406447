"""A request that is sent again means the replay that it meant the first time, and schedules nothing twice."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("replay", "0005_replay_control")]

    operations = [
        migrations.AddField(
            model_name="scheduledreplay",
            name="request_id",
            field=models.CharField(
                editable=False,
                help_text="What asked for it: asked twice, made once.",
                max_length=60,
                null=True,
                unique=True,
            ),
        ),
        migrations.CreateModel(
            name="NamedRequest",
            fields=[
                ("name", models.CharField(max_length=60, primary_key=True, serialize=False)),
                (
                    "failed",
                    models.BooleanField(
                        default=False, help_text="It was not carried out: whoever asks again tries again."
                    ),
                ),
                ("answer", models.JSONField(help_text="The status that the streamer answered.", null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True, db_index=True)),
                (
                    "replay",
                    models.ForeignKey(
                        help_text="The one active then, if any.",
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        to="replay.replay",
                    ),
                ),
            ],
        ),
    ]
