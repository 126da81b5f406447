import django.contrib.postgres.indexes
import django.core.validators
from django.db import migrations, models

# The owner's table, for SQL clients and dashboards. Integer arithmetic only: numeric is exact, and an interval
# read from text goes through no float, so not a digit of price or time is lost (ts itself holds microseconds).
CREATE_VIEW = """
CREATE VIEW snapshots AS
SELECT
    timestamptz 'epoch' + ((ts_event / 1000)::text || ' microseconds')::interval AS ts,
    symbol::text AS symbol,
    best_bid_px * 0.000000001 AS best_bid_px,
    best_bid_sz,
    best_ask_px * 0.000000001 AS best_ask_px,
    best_ask_sz,
    (best_bid_px::numeric + best_ask_px) * 0.0000000005 AS mid,
    (best_ask_px::numeric - best_bid_px) * 0.000000001 AS spread
FROM history_snapshot
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Instrument",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("symbol", models.CharField(max_length=71, unique=True)),
                ("instrument_id", models.BigIntegerField()),
                ("publisher_id", models.IntegerField()),
                (
                    "tick_size",
                    models.BigIntegerField(
                        help_text="Smallest price step in 1e-9 units (10000000 = 0.01). Inferred from the data; correct it here.",
                        validators=[django.core.validators.MinValueValidator(1)],
                    ),
                ),
            ],
            options={
                "ordering": ["symbol"],
            },
        ),
        migrations.CreateModel(
            name="Snapshot",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("symbol", models.CharField(max_length=71)),
                ("ts_event", models.BigIntegerField(help_text="Venue time of the event, ns UTC.")),
                ("sequence", models.BigIntegerField()),
                ("ts_recv", models.BigIntegerField()),
                ("best_bid_px", models.BigIntegerField(null=True)),
                ("best_bid_sz", models.BigIntegerField()),
                ("best_bid_ct", models.IntegerField()),
                ("best_ask_px", models.BigIntegerField(null=True)),
                ("best_ask_sz", models.BigIntegerField()),
                ("best_ask_ct", models.IntegerField()),
            ],
            options={
                "indexes": [
                    django.contrib.postgres.indexes.BrinIndex(fields=["ts_event"], name="snapshot_ts_event_brin")
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("symbol", "ts_event", "sequence"), name="one_snapshot_per_event")
                ],
            },
        ),
        migrations.RunSQL(CREATE_VIEW, "DROP VIEW snapshots"),
    ]
