"""manage.py scandatasets: register the files of DATA_DIR and CSV_PATH, and show what they hold."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from tqdm import tqdm

from orderbook.book.timestamp import format_ns
from replay import datasets
from replay.models import Dataset

HEAD = ("name", "state", "format", "records", "events", "symbols", "from", "to")


class Command(BaseCommand):
    help = "Register the files of DATA_DIR and CSV_PATH; a broken one is shown with its reason and stops no other."

    def handle(self, *args: Any, **options: Any) -> None:
        total = sum(path.stat().st_size for path in datasets.files() if path.is_file())
        with tqdm(total=total, unit="B", unit_scale=True, desc="Datasets", file=self.stderr, disable=None) as bar:

            def progress(path: Path, n: int) -> None:
                bar.set_postfix_str(path.name, refresh=False)
                bar.update(n)

            found = datasets.scan(progress)
        if not found:
            self.stdout.write(f"No datasets: {settings.DATA_DIR} has no .dbn, .dbn.zst, .csv or .csv.zst file.")
            return
        rows = [HEAD, *(_row(dataset) for dataset in found)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
        for row in rows:
            self.stdout.write("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        for dataset in found:
            if dataset.error:
                self.stdout.write(f"{dataset.name} cannot be replayed: {dataset.error}")


def _row(dataset: Dataset) -> tuple[str, ...]:
    symbols = ",".join(instrument.symbol for instrument in dataset.instruments.all())
    return (
        *(dataset.name, dataset.state, dataset.format, f"{dataset.records:,}", f"{dataset.events:,}"),
        *(symbols, _time(dataset.first_ts_event), _time(dataset.last_ts_event)),
    )


def _time(ns: int | None) -> str:
    return "" if ns is None else format_ns(ns)[:19] + "Z"
