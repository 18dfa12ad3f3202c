"""The catalogue and the code tables agree with each other and with DOMAIN sections 3 and 4.1."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.faults import FAULTS, TABLES, Severity, meaning
from core.kinds import KINDS
from core.kinds.status import EventPayload

TABLE_KINDS = {
    **dict.fromkeys(("gbt24476", "gbt24476-91", "bacnet-lift", "names-elevator"), "elevator"),
    **dict.fromkeys(("dny", "ocpp-16", "names-charger"), "charger"),
}
ENTRIES = [(table.name, code, fault) for table in TABLES.values() for code, fault in table.codes.items()]


@pytest.mark.parametrize(("table", "code", "fault"), ENTRIES, ids=str)
def test_a_code_leads_to_a_fault_of_its_tables_kind_and_no_other(table: str, code: str, fault: str):
    assert FAULTS[fault].kind == TABLE_KINDS[table]
    for kind in KINDS:
        assert meaning(table, code, kind) == (fault if kind == TABLE_KINDS[table] else None)


@pytest.mark.parametrize(("table", "code"), [entry[:2] for entry in ENTRIES])
def test_a_device_can_send_every_code(table: str, code: str):
    EventPayload(id="e", ts=0, code=code, table=table, state="raised")


@given(st.text(max_size=10), st.text(max_size=10), st.sampled_from([*KINDS, "escalator"]))
def test_what_no_table_knows_means_nothing(table: str, code: str, kind: str):
    if (table, code) not in {entry[:2] for entry in ENTRIES}:
        assert meaning(table, code, kind) is None


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_every_fault_is_whole(fault):
    assert FAULTS[fault.name] is fault
    assert re.fullmatch(r"[a-z][a-z_]*", fault.name), "rules name it as a word"
    assert fault.kind in KINDS
    assert re.search(r"[一-鿿]", fault.zh)
    assert fault.en.isascii()
    assert fault.severity is None or fault.severity in Severity


@pytest.mark.parametrize(
    ("code", "severity"),
    [
        *(("1", "P1"), ("2", "P2"), ("3", "P2"), ("4", "P2"), ("5", "P1"), ("6", "P1"), ("7", "P2"), ("8", "P2")),
        *(("41", "P2"), ("90", "P0"), ("11", "P0"), ("40", None), ("43", None), ("47", None)),
    ],
)
def test_severities_of_domain_section_3(code: str, severity: str | None):
    name = meaning("gbt24476", code, "elevator")
    assert name is not None
    assert FAULTS[name].severity == severity


@pytest.mark.parametrize("code", ["alarm-4", "alarm-5", "stop-24"])
def test_fire_is_about_life(code: str):
    name = meaning("dny", code, "charger")
    assert name is not None
    assert FAULTS[name].severity is Severity.P0
