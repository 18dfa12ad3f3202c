"""`/metrics` for Prometheus: the counts of `/api/v1/stats` under names that begin with `tizhuang_`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api import models
from api.services import Services
from api.stats import collect
from core.errors import StoreUnavailable

router = APIRouter(tags=["operation"])

_COUNTERS: Final = {
    "messages_received": ("received", "messages received from the broker"),
    "messages_carried": ("carried", "messages that an earlier process left in the spool"),
    "messages_stored": ("stored", "messages stored"),
    "messages_duplicate": ("duplicate", "messages recognised as repeats"),
    "messages_quarantined": ("quarantined", "messages that could not become readings"),
    "messages_acked": ("acked", "messages acknowledged to the broker"),
    "messages_clockless": ("clockless", "messages whose device time was not believed"),
    "readings": ("readings", "readings taken from messages"),
    "events": ("events", "device events taken from messages"),
    "alerts_lost": ("alerts_lost", "decisions of the rules that could not be written"),
    "late_samples": ("late_samples", "samples that came too late to be judged"),
    "unknown_fields_dropped": ("unknown_fields_dropped", "values left out: too many different unknown fields"),
}
_GAUGES: Final = {
    "messages_in_flight": ("in_flight", "messages received and not settled yet"),
    "messages_spooled": ("spooled", "messages in the spool, on their way to the series store"),
    "messages_balance": ("balance", "received + carried - all that became of them; 0 between two batches"),
    "spool_bytes": ("spool_bytes", "size of the spool on disk"),
    "spool_limit_bytes": ("spool_limit_bytes", "size at which the spool is full and acknowledgements stop"),
    "unknown_fields": ("unknown_fields", "different unknown field names that are kept"),
    "broker_connected": ("connected", "1 while the worker is connected to the broker"),
    "tickets_open": ("open_tickets", "tickets that are not closed"),
    "quarantine_rows": ("quarantine_rows", "rows in quarantine"),
    "outbox_waiting": ("outbox_waiting", "announcements not delivered yet"),
}


def registry(services: Services) -> CollectorRegistry:
    """A registry of one app: two apps in one process (tests) do not meet."""
    made = CollectorRegistry()
    made.register(_Stats(services))
    return made


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
def metrics(request: Request) -> Response:
    """Text format. While the records do not answer, `tizhuang_up` is 0 and the rest is left out."""
    return Response(generate_latest(request.app.state.metrics), media_type=CONTENT_TYPE_LATEST)


class _Stats(Collector):
    """Reads when it is scraped; nothing is counted twice."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> list[Metric]:
        """Nothing in advance: registering must not read a database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One family per count."""
        counts: models.Stats | None
        try:
            counts = collect(self._services)
        except StoreUnavailable:
            counts = None
        yield GaugeMetricFamily("tizhuang_up", "1 while the records answer", value=counts is not None)
        if counts is None:
            return
        for name, (field, text) in _COUNTERS.items():
            yield CounterMetricFamily(f"tizhuang_{name}", text, value=getattr(counts, field))
        for name, (field, text) in _GAUGES.items():
            yield GaugeMetricFamily(f"tizhuang_{name}", text, value=float(getattr(counts, field)))
        rules = self._services.rules()
        troubles = float(len(rules.troubles))
        yield GaugeMetricFamily("tizhuang_rules_in_trouble", "rules that could not be evaluated", value=troubles)
        refused = float(bool(rules.refused))
        yield GaugeMetricFamily("tizhuang_rule_files_refused", "1 while older rules are in force", value=refused)
        blocked = float(bool(counts.blocked_by))
        yield GaugeMetricFamily("tizhuang_worker_blocked", "1 while nothing is acknowledged", value=blocked)
        away = float(bool(counts.store_away))
        yield GaugeMetricFamily("tizhuang_series_store_away", "1 while the series store takes no data", value=away)
