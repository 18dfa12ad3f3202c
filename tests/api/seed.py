"""A small neighbourhood, written through storage as the worker and the engine would write it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from fastapi import FastAPI

from alerts.rulebook import load_rules
from api.app import create_app
from api.server import Server
from api.services import RulesState, Services
from core.faults import Severity
from core.incident import Change, Finding, RuleState, Words
from core.reading import Batch, Event, Reading, Rejected, Value
from core.settings import load
from core.stats import IngestStats
from storage import records
from storage.alarm_quality import AlarmQuality
from storage.drivers import open_series
from storage.incidents import Incidents
from storage.outbox import Outbox
from storage.quarantine import Quarantine
from storage.register_file import RegisterFile
from storage.registry import Registry
from storage.silences import Silences
from storage.tickets import Tickets

NOW = 1_795_300_000_000
"""What the clock of the tests says: 2026-11-22T01:46:40Z."""

LIFT, PILE, STRANGER = "fenghe.lift-01", "fenghe.pile-01", "elsewhere.lift-99"
HOSTILE = "<script>alert('x')</script>"


@dataclass
class House:
    """Open services and what tests may change about them."""

    services: Services
    stats: IngestStats
    rules: RulesState
    now: int = NOW

    def raise_fault(self, device: str = LIFT, part: str = "", *, group: str = "entrapment", **finding: Any) -> int:
        """An incident with its ticket; returns the ticket's id."""
        self.services.incidents.apply([change(device, part, group=group, at=self.now, **finding)], now=self.now)
        (ticket,) = self.services.tickets.find(device_id=device, limit=1)
        return ticket.id

    def read(self, device: str, part: str = "", kind: str = "elevator", **fields: Any) -> None:
        """One reading, a second ago, received now."""
        one = Reading(device, kind, part, self.now - 1_000, self.now, None, fields)
        self.services.series.write(Batch((one,)))

    def walk(self, ticket: int, *actions: str, **said: Any) -> None:
        """Moves a ticket on."""
        for action in actions:
            self.services.tickets.act(ticket, action, actor="王师傅", said=said, now=self.now)


def change(
    device: str,
    part: str = "",
    *,
    group: str,
    at: int,
    severity: Severity = Severity.P0,
    title: tuple[str, str] = ("困人（层间）", "Person trapped between floors"),
    needs_clear: bool | None = None,
    evidence: Mapping[str, Any] | None = None,
    effect: Any = "raise",
) -> Change:
    """What the engine would say."""
    clear = group == "entrapment" if needs_clear is None else needs_clear
    finding = Finding(
        f"rule-{group}", group, severity, Words(*title), Words("立即安抚乘客。", "Talk to them."), "person", clear
    )
    seen = {"value": False, "ts": at - 20_000}
    said = {
        "rule": f"rule-{group}",
        "when": "not door_zone",
        "since": at - 20_000,
        "at": at,
        "values": {"door_zone": seen},
    }
    state = RuleState(device, part, f"rule-{group}", "firing", at - 20_000, at)
    return Change(finding, state, effect, at, False, said if evidence is None else evidence)


REGISTER = """
sites: [{id: fenghe, zh: 风荷苑, en: Fenghe Court, street_zh: 某街道, street_en: A street}]
buildings: [{site: fenghe, id: no-1, zh: 1号楼, en: Building 1}]
contractors: [{id: east-lifts, zh: 东区电梯维保公司, en: East District Lifts}]
devices:
- {site: fenghe, id: lift-01, kind: elevator, zh: 1号楼1门电梯, en: "Building 1, lift", building: no-1,
   contractor: east-lifts, statics: {floors: 6, rated_speed_mps: 0.6}}
- {site: fenghe, id: lift-02, kind: elevator, zh: 1号楼2门电梯, en: "Building 1, lift 2", building: no-1,
   contractor: east-lifts, statics: {floors: 6}}
- {site: fenghe, id: pile-01, kind: charger, zh: 车棚1号充电桩, en: "Shelter, pile 1",
   contractor: east-lifts, statics: {ports: 10, model: P10}}
"""


def register(services: Services) -> None:
    """One site with two lifts and a pile, and a lift that nobody registered."""
    services.registry.register(RegisterFile.model_validate(yaml.safe_load(REGISTER)), now=NOW - 86_400_000)
    services.registry.heard([(STRANGER, "elevator")], now=NOW - 5_000)


def measure(services: Services, now: int = NOW) -> None:
    """What the devices said until now: an hour of trips, a pile with two busy ports, an event."""
    trips = [
        Reading(
            LIFT, "elevator", "", at, at + 50, None, {"floor": 1 + (at // 60_000) % 6, "speed_mps": 0.5, "moving": True}
        )
        for at in range(now - 3_600_000, now - 60_000, 60_000)
    ]
    lift: dict[str, Value] = {
        "floor": 3,
        "floor_label": "3",
        "moving": False,
        "direction": "none",
        "door": "open",
        "door_zone": True,
    }
    more: dict[str, Value] = {"occupied": True, "motor_temp_c": 41.256, "online": True, HOSTILE: HOSTILE}
    last = now - 2_000
    items: list[Reading | Event] = [
        *trips,
        Reading(LIFT, "elevator", "", last, last + 40, 7, lift | more | {HOSTILE: HOSTILE}),
        Reading(LIFT, "elevator", "", now - 900_000, now - 900_000, 1, {"noise_db": 40.0}),
        Reading(STRANGER, "elevator", "", now - 5_000, now - 5_000, 1, {"floor": 2}),
        Reading(PILE, "charger", "", last, last, 1, {"voltage_v": 231.5, "online": True}),
        Reading(PILE, "charger", "1", last, last, 1, {"state": "charging", "power_w": 163.4, "temp_c": 31.0}),
        Reading(PILE, "charger", "2", last, last, 1, {"state": "charging", "power_w": 240.0, "temp_c": 33.0}),
        Reading(PILE, "charger", "3", last, last, 1, {"state": "idle", "power_w": 0.0, "temp_c": 21.0}),
        Event(LIFT, "elevator", "", last, last, 8, "e-1", "gbt24476", "2", "door_closing_fault", raised=True),
        Event(LIFT, "elevator", "", last, last, 9, "e-2", "gbt24476", "77", None, raised=True),
    ]
    services.series.write(Batch(tuple(items)))
    services.quarantine.keep(
        [
            Rejected(
                "tizhuang/v1/fenghe/elevator/lift-01/telemetry",
                b'{"floor": "' + HOSTILE.encode() + b'"}',
                "floor: wrong",
                now,
            ),
            Rejected("tizhuang/v1/" + HOSTILE, b"\xff\xfe" + b"x" * 5_000, "topic: " + HOSTILE, now),
        ]
    )


@contextmanager
def house(folder: Path, **sections: Any) -> Iterator[House]:
    """Services over fresh databases in a folder. `sections`: settings, such as `http={...}`."""
    settings = load(data={"dir": folder}, **sections)
    with (
        closing(records.open_records(records.address("", folder))) as opened,
        closing(open_series(settings)) as store,
    ):
        services = Services(
            settings=settings,
            registry=Registry(opened),
            incidents=Incidents(opened),
            tickets=Tickets(opened),
            silences=Silences(opened),
            alarm_quality=AlarmQuality(opened),
            quarantine=Quarantine(opened),
            outbox=Outbox(opened),
            series=store,
            rules=lambda: made.rules,
            stats=lambda: made.stats,
            now=lambda: made.now,
        )
        counts = IngestStats(connected=True, received=10, stored=7, duplicate=1, quarantined=2)
        made = House(services, counts, RulesState(load_rules(settings.alerts.rules), {}, ""))
        yield made


class Served(NamedTuple):
    """A running app."""

    address: str
    app: FastAPI


@contextmanager
def served(services: Services) -> Iterator[Served]:
    """A real uvicorn on a free port. It must have stopped 3 seconds after it was told to."""
    app = create_app(services)
    server = Server(app)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", app)
        finally:
            server.should_exit = True
            thread.join(3)
            assert not thread.is_alive(), "the server did not stop"
