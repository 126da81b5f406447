"""The benchmark of the whole way, run small: real processes, a real PostgreSQL and Redis of its own."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

KEYS = {
    "records", "elapsed_s", "records_per_s", "framing", "snapshots", "snapshots_stored", "snap_p50_us", "snap_p99_us",
    "apply_p50_ns", "apply_p99_ns", "apply_max_ns", "publish_p99_ms", "engine_cpu_s", "engine_peak_mb",
    "streamer_peak_mb",
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "stored"),
    [(["--framing", "csv"], False), (["--framing", "dbn", "--database", "--snapshot-every", "20"], True)],
)
def test_a_small_run_tells_every_figure(words: list[str], stored: bool) -> None:
    out = StringIO()
    call_command("benchpipeline", "--records", "40000", "--rounds", "1", "--json", *words, stdout=out)
    report = json.loads(out.getvalue())
    assert report.keys() >= KEYS
    assert (report["records"], report["framing"]) == (40000, words[1])
    assert report["snapshots_stored"] == (report["snapshots"] if stored else 0)
    for name in KEYS - {"framing", "snapshots_stored"}:
        assert report[name] > 0, name


def test_a_number_out_of_range_is_refused() -> None:
    with pytest.raises(CommandError, match="--records: expected 1 to"):
        call_command("benchpipeline", "--records", "0")
