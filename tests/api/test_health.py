"""`/healthz`, `/readyz` with its reasons, `/metrics`."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.api import seed


def test_alive_and_ready(calm: httpx.Client) -> None:
    assert calm.get("/healthz").json() == {"status": "ok", "reasons": []}
    assert calm.get("/readyz").json() == {"status": "ok", "reasons": []}


def test_a_lost_alert_is_not_ready(home: seed.House, web: httpx.Client) -> None:
    home.stats = home.stats._replace(connected=True, alerts_lost=2)
    answer = web.get("/readyz")
    assert answer.status_code == 503
    assert "2 alerts could not be written" in answer.json()["reasons"][0]
    assert "tizhuang_alerts_lost_total 2.0" in web.get("/metrics").text


def test_not_ready_says_why(home: seed.House, web: httpx.Client, tmp_path: Path) -> None:
    home.stats = home.stats._replace(connected=False, blocked_by="series store: disk full")
    with sqlite3.connect(tmp_path / "records.sqlite") as connection:
        connection.execute("DROP TABLE ticket_history")
    answer = web.get("/readyz")
    assert answer.status_code == 503
    broker, worker, records = answer.json()["reasons"]
    assert broker == "the broker is not connected"
    assert worker == "the worker waits: series store: disk full"
    assert "ticket_history" in records
    assert web.get("/healthz").status_code == 200


def test_metrics_are_the_counts(home: seed.House, web: httpx.Client) -> None:
    home.raise_fault()
    answer = web.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = {
        sample.name: sample.value for family in text_string_to_metric_families(answer.text) for sample in family.samples
    }
    assert all(name.startswith("tizhuang_") for name in found)
    assert found["tizhuang_messages_received_total"] == 10
    assert found["tizhuang_tickets_open"] == 1
    assert found["tizhuang_messages_balance"] == 0
