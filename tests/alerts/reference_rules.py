"""Two sets of rules, each written twice: as a rule file, and as the reference model knows them."""
# ruff: noqa: E501 - a rule stands in one line, so that both ways of writing it can be compared

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from alerts.rulebook import RuleBook, parse_rules
from core.reading import Value
from tests.alerts.reference import Ref, Truth, View
from tests.alerts.timeline import BASE


def both(*truths: Truth) -> Truth:
    return False if False in truths else None if None in truths else True


def no(truth: Truth) -> Truth:
    return None if truth is None else not truth


def above(value: Any, limit: float) -> Truth:
    """Strictly."""
    return None if value is None else bool(value > limit)


def least(value: Any, limit: float) -> Truth:
    return None if value is None else bool(value >= limit)


def same(value: Any, other: Any) -> Truth:
    return None if value is None else bool(value == other)


def flag(view: View, field: str) -> Truth:
    value = view.value(field)
    return None if value is None else bool(value)


def grown(view: View, field: str, length_ms: int, limit: float) -> Truth:
    seen = view.window(field, length_ms)
    return above(seen[-1] - seen[0], limit) if len(seen) > 1 else None


def counted(view: View, length_ms: int, limit: int) -> Truth:
    """`count(state == "charging", ...)`; unknown while nothing was ever counted."""
    if not view.reports("state"):
        return None
    return least(view.became(lambda then: same(then.value("state"), "charging"), "state", length_ms), limit)


class Set(NamedTuple):
    """Rules twice: as a file, and as the reference knows them. And what devices of that kind may say."""

    kind: str
    text: str
    refs: tuple[Ref, ...]
    device: st.SearchStrategy[Mapping[str, Value]]
    port: st.SearchStrategy[Mapping[str, Value]] | None
    faults: Sequence[tuple[str, str]]
    """(part, fault)."""

    @property
    def book(self) -> RuleBook:
        head = f"kind: {self.kind}\nrules:\n"
        entries = [line.strip() for line in self.text.strip().splitlines()]
        return parse_rules(
            head + "\n".join(f"  - {{title: {{zh: 题, en: title}}, {entry}}}" for entry in entries), "reference.yaml"
        )

    def without(self, *rule_ids: str) -> Set:
        """Fewer rules."""
        kept = [one for one in self.text.strip().splitlines() if one.split(",")[0].split()[1] not in rule_ids]
        return self._replace(text="\n".join(kept), refs=tuple(one for one in self.refs if one.id not in rule_ids))


S = 1_000
PILE = Set(
    "charger",
    """
    id: dark, group: power, severity: P2, when: not mains, for: 5s, clear_for: 3s
    id: fire, group: fire, severity: P0, event: [heat, fire_system], clear_for: 2s
    id: leak, group: leak, severity: P2, when: leakage_ma >= 30, flap: {changes: 2, within: 60s}, inhibited_by: [fire]
    id: night, group: night, severity: P3, when: leakage_ma >= 10, schedule: "22:00-22:15", for: 2s
    id: smoke-dark, group: dark, severity: P1, when: active("smoke") and not mains, for: 5s
    id: hot, part: port, group: heat, severity: [P2, {severity: P1, when: temp_c >= 90, for: 3s}], when: temp_c >= 80 and state != "idle", for: 10s, clear: temp_c < 70
    id: warm, part: port, group: heat, severity: P3, when: temp_c >= 70, clear: temp_c < 70, clear_for: 5s, keep_firing_for: 20s, inhibited_by: [power]
    id: odd, part: port, group: odd, severity: P3, when: power_w >= 5, clear: state == "idle"
    id: weld, part: port, group: weld, severity: P1, when: active("relay_welded") and mains, for: 3s
    id: weld-now, part: port, group: weld, severity: P2, event: [relay_welded], when: power_w >= 5, within: 30s
    id: quiet, part: port, group: quiet, severity: P4, when: age(power_w) > 30s
    id: swings, part: port, group: swings, severity: P3, when: 'count(state == "charging", 60s) >= 2'
    id: rise, part: port, group: rise, severity: P3, when: 'delta(temp_c, 30s) > 15'
    id: uneven, part: port, group: uneven, severity: P3, when: temp_c > max_ports(temp_c) + 15, for: 3s
    """,
    (
        Ref("dark", "power", "P2", lambda v: no(flag(v, "mains")), frozenset({"mains"}), for_ms=5 * S, clear_for_ms=3 * S),
        Ref("fire", "fire", "P0", events=frozenset({"heat", "fire_system"}), clear_for_ms=2 * S),
        Ref(
            "leak", "leak", "P2", lambda v: least(v.value("leakage_ma"), 30), frozenset({"leakage_ma"}),
            flap=(2, 60 * S), inhibited_by=frozenset({"fire"}),
        ),
        Ref(
            "night", "night", "P3", lambda v: least(v.value("leakage_ma"), 10), frozenset({"leakage_ma"}),
            plain=False, moments=frozenset({BASE + 100 * S}), open_at=lambda at: at < BASE + 100 * S, for_ms=2 * S,
        ),
        Ref(
            "smoke-dark", "dark", "P1", lambda v: both(v.active("smoke"), no(flag(v, "mains"))), frozenset({"mains"}),
            frozenset({"smoke"}), for_ms=5 * S,
        ),
        Ref(
            "hot", "heat", "P2", lambda v: both(least(v.value("temp_c"), 80), no(same(v.value("state"), "idle"))),
            frozenset({"temp_c", "state"}), on_port=True, for_ms=10 * S, clear=lambda v: no(least(v.value("temp_c"), 70)),
        ),
        Ref("hot.p1", "heat", "P1", lambda v: least(v.value("temp_c"), 90), frozenset({"temp_c"}), on_port=True, for_ms=3 * S),
        Ref(
            "warm", "heat", "P3", lambda v: least(v.value("temp_c"), 70), frozenset({"temp_c"}), on_port=True,
            clear=lambda v: no(least(v.value("temp_c"), 70)), clear_for_ms=5 * S, keep_ms=20 * S,
            inhibited_by=frozenset({"power"}),
        ),
        Ref(
            "odd", "odd", "P3", lambda v: least(v.value("power_w"), 5), frozenset({"power_w", "state"}), on_port=True,
            clear=lambda v: same(v.value("state"), "idle"),
        ),
        Ref(
            "weld", "weld", "P1", lambda v: both(v.active("relay_welded"), flag(v, "mains")), frozenset({"mains"}),
            frozenset({"relay_welded"}), on_port=True, for_ms=3 * S,
        ),
        Ref(
            "weld-now", "weld", "P2", lambda v: least(v.value("power_w"), 5), frozenset({"power_w"}), on_port=True,
            events=frozenset({"relay_welded"}), within_ms=30 * S,
        ),
        Ref(
            "quiet", "quiet", "P4", lambda v: above(v.age_ms("power_w"), 30 * S), frozenset({"power_w"}), plain=False,
            edges=frozenset({30 * S}), on_port=True,
        ),
        Ref(
            "swings", "swings", "P3", lambda v: counted(v, 60 * S, 2), frozenset({"state"}), plain=False,
            edges=frozenset({60 * S}), on_port=True,
        ),
        Ref(
            "rise", "rise", "P3", lambda v: grown(v, "temp_c", 30 * S, 15), frozenset({"temp_c"}), plain=False,
            edges=frozenset({30 * S}), pace_ms=3 * S, on_port=True,
        ),
        Ref(
            "uneven", "uneven", "P3",
            lambda v: above(v.number("temp_c"), max(v.neighbours("temp_c")) + 15) if v.neighbours("temp_c") else None,
            frozenset({"temp_c"}), plain=False, on_port=True, for_ms=3 * S,
        ),
    ),
    st.fixed_dictionaries({}, optional={"mains": st.booleans(), "leakage_ma": st.sampled_from([1.0, 10.0, 30.0])}),
    st.fixed_dictionaries(
        {},
        optional={
            "temp_c": st.sampled_from([20.0, 69.9, 70.0, 80.0, 90.0]),
            "state": st.sampled_from(["idle", "charging"]),
            "power_w": st.sampled_from([0.0, 5.0]),
        },
    ),
    (("", "heat"), ("", "fire_system"), ("", "smoke"), ("1", "relay_welded"), ("2", "relay_welded")),
)  # fmt: skip
"""On 21 September 2026 at `BASE` it is 22:13:20 in Shanghai: 100 s before the schedule of `night` ends."""

MODE = frozenset({"service_mode"})
LIFT = Set(
    "elevator",
    """
    id: power, group: power, severity: P2, when: not mains, for: 3s
    id: stuck, group: stuck, severity: P0, when: occupied and not moving, for: 20s, clear: door == "open" and not occupied, mute_in: [inspection], mute_cap: 60s
    id: door, group: door, severity: P2, event: [door_closing_fault, door_opening_fault], mute_in: [inspection], mute_cap: 60s
    id: level, group: level, severity: P3, when: not moving and not door_zone, mute_in: [inspection], inhibited_by: [power, stuck]
    id: halted, group: stuck, severity: P1, event: [stopped_outside_door_zone], when: occupied, within: 10s, mute_in: [inspection], inhibited_by: [power]
    id: shaky, group: shaky, severity: P3, when: not door_zone, flap: {changes: 2, within: 30s}, keep_firing_for: 5s, clear: door_zone
    """,
    (
        Ref("power", "power", "P2", lambda v: no(flag(v, "mains")), frozenset({"mains"}), for_ms=3 * S),
        Ref(
            "stuck", "stuck", "P0", lambda v: both(flag(v, "occupied"), no(flag(v, "moving"))),
            frozenset({"occupied", "moving", "door"}) | MODE, for_ms=20 * S, clear=lambda v: both(same(v.value("door"), "open"), no(flag(v, "occupied"))),
            mute_in=frozenset({"inspection"}), mute_cap_ms=60 * S,
        ),
        Ref(
            "door", "door", "P2", events=frozenset({"door_closing_fault", "door_opening_fault"}),
            mute_in=frozenset({"inspection"}), mute_cap_ms=60 * S,
        ),
        Ref(
            "halted", "stuck", "P1", lambda v: flag(v, "occupied"), frozenset({"occupied"}) | MODE,
            events=frozenset({"stopped_outside_door_zone"}), within_ms=10 * S, mute_in=frozenset({"inspection"}),
            inhibited_by=frozenset({"power"}),
        ),
        Ref(
            "level", "level", "P3", lambda v: both(no(flag(v, "moving")), no(flag(v, "door_zone"))),
            frozenset({"moving", "door_zone"}) | MODE, mute_in=frozenset({"inspection"}),
            inhibited_by=frozenset({"power", "stuck"}),
        ),
        Ref(
            "shaky", "shaky", "P3", lambda v: no(flag(v, "door_zone")), frozenset({"door_zone"}), flap=(2, 30 * S),
            keep_ms=5 * S, clear=lambda v: flag(v, "door_zone"),
        ),
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "mains": st.booleans(),
            "occupied": st.booleans(),
            "moving": st.booleans(),
            "door_zone": st.booleans(),
            "door": st.sampled_from(["open", "closed"]),
            "service_mode": st.sampled_from(["normal", "inspection"]),
        },
    ),
    None,
    (("", "door_closing_fault"), ("", "door_opening_fault"), ("", "stopped_outside_door_zone")),
)  # fmt: skip
