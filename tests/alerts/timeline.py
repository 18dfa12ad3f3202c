"""Time lines for the rule engine: steps in, what became of the incidents out. And a memory, to start an engine anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from alerts.desk import CATCH_UP_MS
from alerts.engine import Engine
from alerts.rules import Rule
from core.clock import duration_ms
from core.faults import meaning
from core.incident import Change, RuleState
from core.reading import Batch, Event, Reading, Value

BASE = 1_790_000_000_000
"""Second zero of every time line, Unix ms."""

DELAY_MS = 100
"""From device to us, unless a step says otherwise."""

_TABLES = {"elevator": "gbt24476", "charger": "dny"}


class Memory:
    """What a process leaves behind: saved rule states, newest values and events. The slow, obvious store."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, str, str], RuleState] = {}
        self.readings: list[Reading] = []
        self.events: list[Event] = []

    def keep(self, batch: Batch) -> None:
        self.readings += batch.readings
        self.events += batch.events

    def save(self, changes: Iterable[Change]) -> None:
        for change in changes:
            state = change.state
            self.states[state.device_id, state.part, state.rule_id] = state

    def restored(
        self, rules: Sequence[Rule], devices: dict[str, tuple[str, dict[str, Value]]], *, now: int, started: int = 0
    ) -> Engine:
        """A new engine that takes up where this memory ends, as `alerts.desk` makes one.

        `started`: when it counts its grace from, if that is not `now`.
        """
        engine = Engine(rules)
        engine.hold((started or now) + CATCH_UP_MS)
        for device_id, (kind, statics) in devices.items():
            engine.know_device(device_id, kind, statics, now=now)
        for device_id, part in dict.fromkeys((one.device_id, one.part) for one in self.readings):
            mine = [one for one in self.readings if (one.device_id, one.part) == (device_id, part)]
            values: dict[str, tuple[Value, int]] = {}
            for one in sorted(mine, key=lambda one: one.ts):  # stable: of two at one instant the later arrival
                values |= {name: (value, one.ts) for name, value in one.fields.items()}
            heard = [one.rx for one in mine if one.sign_of_life]
            newest = max(one.ts for one in mine)
            engine.restore_values(device_id, part, values, ts=newest, rx=max(heard, default=None), now=now)
        newest_events: dict[tuple[str, str, str | None], Event] = {}
        once: dict[tuple[object, ...], Event] = {}
        for event in self.events:
            once.setdefault((event.device_id, event.part, event.id, event.ts, event.raised), event)
        for event in sorted(once.values(), key=lambda one: one.ts):
            newest_events[event.device_id, event.part, event.fault] = event
        for event in newest_events.values():
            engine.restore_event(event)
        for _, state in sorted(self.states.items()):
            engine.restore_state(state)
        return engine


def told(changes: Iterable[Change]) -> list[str]:
    """What became of incidents, in words: `20s raise lift-silent P4`, with `/3` behind the rule of port 3."""
    lines = []
    for change in changes:
        if change.effect == "none":
            continue
        part = f"/{change.state.part}" if change.state.part else ""
        line = f"{(change.at - BASE) / 1000:g}s {change.effect} {change.finding.rule_id}{part}"
        if change.effect == "raise":
            line += f" {change.finding.severity}" + (" late" if change.late else "")
        lines.append(line)
    return lines


def play(case: dict[str, Any], rules: Sequence[Rule], *, restart_everywhere: bool = False) -> list[Change]:
    """All changes of a time line, in order.

    Steps: `{at: 3s, send: {...}}`, `{at: 3s, port: 2, send: {...}}`, `{at: 3s, event: "4 raised"}`, `{wall: 9s}` moves
    the wall clock on, `{wall: 9s, listening: false}` loses the broker, `{wall: 9s, restart: true}` is a kill and a
    start. `rx` is the time at which a message reached us, a moment after `at` by default;
    `clock_ok: false` says that `at` is ours, because the device's own time could not be believed.
    """
    device_id, kind = "here.device", case["kind"]
    devices = {device_id: (kind, case.get("statics", {}))}
    memory = Memory()
    engine = memory.restored(rules, devices, now=BASE, started=BASE - CATCH_UP_MS)
    engine.listening(True, now=BASE)
    listening = True
    changes: list[Change] = []
    for number, step in enumerate(case["steps"]):
        if "wall" in step:
            now = BASE + duration_ms(step["wall"])
            if "listening" in step:
                listening = step["listening"]
                engine.listening(listening, now=now)
            if step.get("restart"):
                engine = memory.restored(rules, devices, now=now)
                engine.listening(listening, now=now)
            made = engine.advance(now)
        else:
            at = BASE + duration_ms(step["at"])
            now = BASE + duration_ms(step["rx"]) if "rx" in step else at + DELAY_MS
            batch = Batch((_item(step, number, device_id, kind, at, now),))
            made = engine.observe(batch)
            memory.keep(batch)
        memory.save(made)
        changes += made
        if restart_everywhere:
            # The grace after a start is for what the broker holds; here nothing waits, so that it may be over at once.
            engine = memory.restored(rules, devices, now=now, started=now - CATCH_UP_MS)
            engine.listening(listening, now=now)
    return changes


def _item(step: dict[str, Any], number: int, device_id: str, kind: str, ts: int, rx: int) -> Reading | Event:
    part = str(step.get("port", ""))
    retained = step.get("retained", False)
    if "send" in step:
        return Reading(device_id, kind, part, ts, rx, number, step["send"], step.get("clock_ok", True), retained)
    code, state = step["event"].split()
    table = _TABLES[kind]
    fault = meaning(table, code, kind)
    assert fault is not None, f"step {number}: no fault behind code {code}"
    event_id = step.get("id", f"e{number}")
    raised = {"raised": True, "cleared": False}[state]
    return Event(device_id, kind, part, ts, rx, number, event_id, table, code, fault, raised, True, retained)
