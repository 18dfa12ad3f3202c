"""A database of the first version, with everything a version could have written in it, becomes one of today."""

from __future__ import annotations

import json
from typing import Any

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect, text

from core.errors import DataFolderError
from storage import records, tables
from storage.incidents import Incidents
from storage.outbox import Outbox
from storage.records import migrate, open_records
from storage.registry import Registry
from storage.tickets import Tickets
from tests.storage.changes import change

ROWS: dict[str, list[dict[str, Any]]] = {
    "site": [{"id": "here", "zh": "这里", "en": "Here", "latitude": 31.2, "longitude": 121.5}],
    "building": [{"id": "here.b1", "site_id": "here", "zh": "一号楼", "en": "Building 1"}],
    "contractor": [{"id": "east", "zh": "东方", "en": "East"}],
    "device": [
        {"id": "here.lift", "site_id": "here", "kind": "elevator", "zh": "梯", "en": "Lift", "building_id": "here.b1",
         "contractor_id": "east", "registered": True, "statics": '{"floors": 6}', "first_seen": 1},
    ],
    "incident": [
        {"id": number, "device_id": "here.lift", "part": "", "fault_group": "group", "rule_id": f"rule-{number}",
         "severity": "P1", "title_zh": "题", "title_en": "t", "needs_clear": False, "opened_device_ms": number,
         "opened": number, "late": False, "evidence": '{"values": {}}', "closed": closed, "outcome": outcome}
        for number, closed, outcome in ((1, 50, "fixed"), (2, None, None))
    ],
    "ticket": [
        {"id": 1, "incident_id": 1, "state": "closed", "contractor_id": "east", "created": 1, "changed": 50},
        {"id": 2, "incident_id": 2, "state": "accepted", "contractor_id": "east", "created": 2, "changed": 2},
    ],
    "ticket_history": [
        {"id": number, "ticket_id": ticket, "at": number, "device_ms": None, "actor": "王师傅", "action": "report",
         "from_state": None, "to_state": "reported", "note": "看过", "facts": "{}"}
        for number, ticket in ((1, 1), (2, 2), (3, 2))
    ],
    "rule_state": [
        {"device_id": "here.lift", "part": part, "rule_id": "rule", "state": state, "since_device_ms": 5,
         "changed_device_ms": 6, "event_ids": '["e-1"]'}
        for part, state in (("", "firing"), ("1", "pending"), ("2", "idle"))
    ],
    "outbox": [
        {"id": 1, "incident_id": 1, "kind": "opened", "payload": '{"site": "here"}', "created": 1, "sent": 3},
        {"id": 2, "incident_id": 2, "kind": "opened", "payload": '{"site": "here"}', "created": 1, "sent": None},
    ],
    "quarantine": [
        {"id": 1, "topic": "t", "payload_head": b"\xff", "payload_bytes": 1, "digest": "d", "reason": "r",
         "first_rx": 1, "last_rx": 2},
    ],
    "first_receipt": [{"digest": "d", "rx": 1}],
}  # fmt: skip


@pytest.fixture
def url(empty_url: str) -> str:
    """A database of the first version, made by its own migration and filled."""
    engine = create_engine(empty_url)
    config = records._config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0001")
    with engine.begin() as connection:
        for table, rows in ROWS.items():
            for row in rows:
                values = ", ".join(_value(connection, table, name) for name in row)
                connection.execute(text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})"), row)
        if connection.dialect.name == "postgresql":
            for table in ("incident", "ticket", "ticket_history", "outbox", "quarantine"):
                connection.execute(text(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))"))
    engine.dispose()
    return empty_url


def _value(connection: Connection, table: str, column: str) -> str:
    """PostgreSQL takes text for JSON only when it is told so."""
    is_json = str(tables.metadata.tables[table].c[column].type) == "JSON"
    return f"CAST(:{column} AS JSON)" if is_json and connection.dialect.name == "postgresql" else f":{column}"


def content(url: str) -> dict[str, list[dict[str, Any]]]:
    """Every row, with the columns that it was written with."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {
            table: [
                {name: _plain(value) for name, value in row.items()}
                for row in connection.execute(
                    text(f"SELECT {', '.join(rows[0])} FROM {table} ORDER BY 1, 2")
                ).mappings()
            ]
            for table, rows in ROWS.items()
        }
    engine.dispose()
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in {"{", "["}:
        return json.loads(value)
    return bytes(value) if isinstance(value, memoryview) else value


def test_everything_is_still_there(url):
    before = content(url)
    with pytest.raises(DataFolderError, match="tizhuang migrate"):
        open_records(url)
    assert migrate(url) == ("0001", "0002")
    assert content(url) == before
    assert sum(len(rows) for rows in before.values()) == sum(len(rows) for rows in ROWS.values())
    assert migrate(url) == ("0002", "0002")


def test_the_schema_is_the_same_as_a_new_one(url):
    migrate(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        (unique,) = [one for one in inspect(connection).get_indexes("incident") if one["unique"]]
        assert unique["name"] == tables.one_open_incident.name
        if connection.dialect.name == "sqlite":
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
            assert connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
    engine.dispose()


def test_old_rows_have_what_is_new_at_rest(url):
    migrate(url)
    opened = open_records(url)
    assert {site.zone for site in Registry(opened).sites()} == {"Asia/Shanghai"}
    assert {(one.previous_id, one.reopened, one.reason, one.rule_version) for one in Incidents(opened).find()} == {
        (None, 0, "", "")
    }
    assert {(row["version"], json.dumps(row["memo"])) for row in Incidents(opened).rule_states()} == {("", "{}")}
    opened.close()


def test_the_service_goes_on_where_the_old_one_stopped(url):
    migrate(url)
    opened = open_records(url)
    incidents, tickets, outbox = Incidents(opened), Tickets(opened), Outbox(opened)
    incidents.apply([change("raise", 100, rule="port-hot." + "p" * 60)], now=100)
    assert [(one.id, one.closed) for one in incidents.find()] == [(2, None), (1, 50)]
    assert [entry.action for entry in tickets.history(2)][-1] == "joined"
    tickets.act(2, "false_alarm", actor="li", said={"note": "x"}, now=200)
    incidents.apply([change("clear", 300), change("raise", 400)], now=400)
    assert (incidents.find()[0].id, incidents.find()[0].previous_id) == (3, 2)
    assert next(letter.id for letter in outbox.claim("me", now=500)) == 2
    opened.close()
