"""What a scraper sees of an engine: its pages over HTTP, and the samples of /metrics."""

import http.client
import json
from contextlib import closing
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.families: list[Metric] = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Return one sample, or the sum of those that have these labels among theirs."""
        found = [each.value for each in self.samples if each.name == name and labels.items() <= each.labels.items()]
        assert found, f"there is no {name} with {labels}"
        return sum(found)

    def labels(self, name: str, label: str) -> set[str]:
        return {sample.labels[label] for sample in self.samples if sample.name == name}

    def check_equations(self) -> None:
        """Nothing is lost without being counted, at whatever moment this was scraped."""
        rejected = sum(each.value for each in self.samples if each.name == "mbo_records_rejected_total")
        received = self.value("mbo_records_received_total")
        assert received == self.value("mbo_records_applied_total") + self.value("mbo_records_ignored_total") + rejected
        for sink in self.labels("mbo_sink_offered_total", "sink"):
            parts = ("written_total", "duplicates_total", "dropped_total", "conflated_total", "queue_items")
            offered = self.value("mbo_sink_offered_total", sink=sink)
            assert offered == sum(self.value(f"mbo_sink_{part}", sink=sink) for part in parts), sink


def page(port: int, path: str, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())


def probe(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Return status and reasons of a probe; status 0 while nobody listens."""
    try:
        status, body, _ = page(port, path)
    except OSError:
        return 0, {}
    return status, json.loads(body)["reasons"]


def scrape(port: int) -> Scrape:
    status, body, _ = page(port, "/metrics")
    assert status == 200, body
    return Scrape(body.decode())
