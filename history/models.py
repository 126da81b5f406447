"""What is kept: instruments, one row for each snapshot of a book, and how far each engine has come. Floor 2.

Prices are integers in 1e-9 units and times integer nanoseconds, as everywhere inside; the SQL view
``snapshots`` shows the same rows with decimal prices and timestamps. History is keyed by the market and not
by the replay run: replaying a file twice adds nothing and loses nothing.
"""

from django.contrib.postgres.indexes import BrinIndex
from django.core.validators import MinValueValidator
from django.db import models


class Instrument(models.Model):
    """A symbol and the grid that its prices lie on."""

    symbol = models.CharField(max_length=71, unique=True)
    instrument_id = models.BigIntegerField()
    publisher_id = models.IntegerField()
    tick_size = models.BigIntegerField(
        validators=[MinValueValidator(1)],
        help_text="Smallest price step in 1e-9 units (10000000 = 0.01). Inferred from the data; correct it here.",
    )

    class Meta:
        ordering = ["symbol"]

    def __str__(self) -> str:
        return self.symbol


class Snapshot(models.Model):
    """Best bid and offer of one symbol at the end of one event; null prices where a side is empty."""

    symbol = models.CharField(max_length=71)
    ts_event = models.BigIntegerField(help_text="Venue time of the event, ns UTC.")
    sequence = models.BigIntegerField()
    ts_recv = models.BigIntegerField()
    best_bid_px = models.BigIntegerField(null=True)
    best_bid_sz = models.BigIntegerField()
    best_bid_ct = models.IntegerField()
    best_ask_px = models.BigIntegerField(null=True)
    best_ask_sz = models.BigIntegerField()
    best_ask_ct = models.IntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["symbol", "ts_event", "sequence"], name="one_snapshot_per_event"),
        ]
        indexes = [BrinIndex(fields=["ts_event"], name="snapshot_ts_event_brin")]

    def __str__(self) -> str:
        return f"{self.symbol} {self.ts_event} #{self.sequence}"


class EngineMark(models.Model):
    """How far one engine has come in a replay; every snapshot before it is stored. Only the engine reads it."""

    engine = models.CharField(max_length=200, unique=True)
    replay_id = models.BigIntegerField()
    mark = models.BinaryField()
    updated_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.engine} in replay {self.replay_id}"
