"""What the engine promises, for any history: the same answer however it is delivered, repeated or interrupted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from alerts.desk import CATCH_UP_MS
from alerts.engine import Engine
from alerts.rulebook import RuleBook, parse_rules
from core.incident import Change
from core.kinds import part_fields
from core.reading import Batch, Event, Reading, Value
from tests.alerts.timeline import BASE, DELAY_MS, Memory, told

FOR_MS = 10_000
STALE_MS = part_fields("charger")["temp_c"].stale_ms

HOT_RULE = """
kind: charger
rules:
  - {id: hot, part: port, group: heat, severity: P1, title: {zh: 热, en: hot},
     when: temp_c >= 80 and state != "idle", for: 10s, clear: temp_c < 70}
"""
RULES = parse_rules(
    HOT_RULE
    + """
  - {id: hot-now, part: port, group: heat, severity: P2, title: {zh: 热, en: hot}, when: temp_c >= 90}
  - {id: fire, group: fire, severity: P0, title: {zh: 火, en: fire}, event: [heat, fire_system]}
  - {id: smoke-dark, group: dark, severity: P1, title: {zh: 烟, en: smoke},
     when: active("smoke") and not mains, for: 5s}
  - {id: weld, part: port, group: weld, severity: P1, title: {zh: 粘, en: weld},
     when: active("relay_welded") and mains, for: 3s}
""",
    "test.yaml",
)
ONE_RULE = parse_rules(HOT_RULE, "test.yaml")
CODES = {"heat": "alarm-5", "fire_system": "stop-24", "smoke": "alarm-4", "relay_welded": "port-9"}


class Said(NamedTuple):
    """One thing a device says, so long after the one before it."""

    gap_ms: int
    part: str
    fields: dict[str, Value]
    fault: str = ""
    raised: bool = True


gaps = st.sampled_from([1, 900, 1_000, 2_999, 3_000, 4_000, 9_999, 10_000, 10_001, 60_000, STALE_MS, STALE_MS + 1])
port_fields = st.fixed_dictionaries(
    {},
    optional={
        "temp_c": st.sampled_from([20.0, 69.9, 70.0, 79.9, 80.0, 90.0]),
        "state": st.sampled_from(["idle", "charging"]),
        "power_w": st.just(5.0),
    },
)
no_fault, yes = st.just(""), st.just(True)
port_said = st.builds(Said, gaps, st.sampled_from(["1", "2"]), port_fields, no_fault, yes)
pile_fields = st.fixed_dictionaries({}, optional={"mains": st.booleans()})
pile_said = st.builds(Said, gaps, st.just(""), pile_fields, no_fault, yes)
pile_event = st.builds(
    Said, gaps, st.just(""), st.just({}), st.sampled_from(["heat", "fire_system", "smoke"]), st.booleans()
)
port_event = st.builds(Said, gaps, st.sampled_from(["1", "2"]), st.just({}), st.just("relay_welded"), st.booleans())
histories = st.lists(st.one_of(port_said, port_said, pile_said, pile_event, port_event), max_size=14)
one_port = st.lists(st.builds(Said, gaps, st.just("1"), port_fields, no_fault, yes), max_size=14)


def items(history: Sequence[Said], device_id: str = "here.pile") -> list[Reading | Event]:
    """As it arrives: each a moment after it was said."""
    ts = BASE
    made: list[Reading | Event] = []
    for number, said in enumerate(history):
        ts += said.gap_ms
        if said.fault:
            code = CODES[said.fault]
            event = (number, f"e{number}", "dny", code, said.fault, said.raised)
            made.append(Event(device_id, "charger", said.part, ts, ts + DELAY_MS, *event))
        else:
            made.append(Reading(device_id, "charger", said.part, ts, ts + DELAY_MS, number, said.fields))
    return made


def engine_of(rules: RuleBook = RULES) -> Engine:
    engine = Engine(rules)
    for device_id in ("here.pile", "there.pile"):
        engine.know_device(device_id, "charger", {}, now=BASE)
    return engine


def at_the_end(things: Sequence[Reading | Event]) -> int:
    return max((one.rx for one in things), default=BASE) + 3_600_000


def plain(things: Sequence[Reading | Event], rules: RuleBook = RULES) -> list[str]:
    """One batch after the other, each with one thing, and an hour of silence at the end."""
    engine = engine_of(rules)
    changes = engine.observe(Batch(tuple(things)))
    return told(changes + engine.advance(at_the_end(things)))


def by_hand(history: Sequence[Reading | Event]) -> list[str]:
    """The slow, obvious reference for the rule `hot` on one port: looks at the whole history at once."""
    things = [one for one in history if isinstance(one, Reading)]

    def value(name: str, index: int) -> Any:
        now = things[index].ts
        seen = [(one.ts, one.fields[name]) for one in things[: index + 1] if name in one.fields]
        return seen[-1][1] if seen and now - seen[-1][0] <= STALE_MS else None

    def is_true(index: int) -> bool | None:
        temp_c, state = value("temp_c", index), value("state", index)
        hot, used = None if temp_c is None else temp_c >= 80, None if state is None else state != "idle"
        if hot is False or used is False:
            return False
        return None if hot is None or used is None else True

    def is_clear(index: int) -> bool:
        temp_c = value("temp_c", index)
        return temp_c is not None and temp_c < 70

    def is_asked(index: int) -> bool:
        return not things[index].fields.keys().isdisjoint({"temp_c", "state"})

    lines, index = [], 0
    asked = [i for i in range(len(things)) if is_asked(i)]
    while index < len(asked):
        if not is_true(asked[index]):
            index += 1
            continue
        fires = things[asked[index]].ts + FOR_MS
        before = [i for i in asked[index + 1 :] if things[i].ts < fires]
        broken = next((i for i in before if is_true(i) is False), None)
        if broken is not None:
            index = asked.index(broken) + 1
            continue
        lines.append(f"{(fires - BASE) / 1000:g}s raise hot/1 P1")
        after = asked[index + 1 + len(before) :]
        over = next((i for i in after if is_clear(i)), None)
        if over is None:
            break
        lines.append(f"{(things[over].ts - BASE) / 1000:g}s clear hot/1")
        index = asked.index(over) + 1
    return lines


HOT: dict[str, Value] = {"temp_c": 80.0, "state": "charging"}


@given(one_port)
@example([Said(1, "1", HOT), Said(FOR_MS, "1", {"temp_c": 20.0})])
@example([Said(1, "1", HOT), Said(FOR_MS - 1, "1", {"temp_c": 20.0}), Said(1, "1", HOT)])
@example([Said(1, "1", HOT), Said(1, "1", {"temp_c": 79.9}), Said(1, "1", HOT), Said(1, "1", {"power_w": 5.0})])
def test_one_rule_fires_and_clears_when_the_reference_does(history):
    things = items(history)
    assert plain(things, ONE_RULE) == by_hand(things)


@given(histories, st.lists(st.integers(0, 14), max_size=6))
def test_batches_may_be_cut_anywhere(history, cuts):
    things = items(history)
    engine = engine_of()
    lines: list[str] = []
    edges = sorted({0, len(things), *(cut for cut in cuts if cut < len(things))})
    for start, end in itertools.pairwise(edges):
        lines += told(engine.observe(Batch(tuple(things[start:end]))))
    assert lines + told(engine.advance(at_the_end(things))) == plain(things)


@given(histories, st.data())
def test_timers_stamp_what_samples_passing_by_would(history, data):
    """The wall clock looks in at any time; what it fires is stamped with the device's time all the same."""
    things = items(history)
    engine = engine_of()
    changes: list[Change] = []
    for index, one in enumerate(things):
        changes += engine.observe(Batch((one,)))
        until = things[index + 1].rx if index + 1 < len(things) else one.rx + 20_000
        for now in sorted(data.draw(st.lists(st.integers(one.rx, until), max_size=3), label="looks")):
            changes += engine.advance(now)
    changes += engine.advance(at_the_end(things))
    # A timer tells of its part before the next thing arrives; across parts only the order of telling may differ.
    assert sorted(told(changes)) == sorted(plain(things))


@given(histories, histories, st.data())
def test_devices_commute(here, there, data):
    mine, other = items(here), items(there, "there.pile")
    mixed: list[Reading | Event] = []
    left, right = list(mine), list(other)
    while left or right:
        source = left if left and (not right or data.draw(st.booleans(), label="here first")) else right
        mixed.append(source.pop(0))
    engine = engine_of()
    changes = engine.observe(Batch(tuple(mixed))) + engine.advance(at_the_end(mixed))
    for device_id, alone in (("here.pile", mine), ("there.pile", other)):
        assert told(one for one in changes if one.state.device_id == device_id) == plain(alone)


@given(histories, st.integers(0, 14), st.integers(0, 14), st.integers(0, 30_000))
def test_any_part_delivered_again_changes_nothing(history, start, end, later_ms):
    things = items(history)
    again = [one._replace(rx=things[-1].rx + later_ms) for one in things[start:end]]
    assert plain(things + again) == plain(things)


@given(histories, st.sets(st.integers(0, 14), max_size=4), st.booleans())
def test_a_restart_at_any_point_changes_nothing(history, stops, delivered_again):
    """What the store and the records remember is enough, even when the broker delivers the last messages again."""
    things = items(history)
    memory = Memory()
    devices = {"here.pile": ("charger", dict[str, Value]())}
    engine = engine_of()
    changes: list[Change] = []

    def take(one: Reading | Event) -> None:
        made = engine.observe(Batch((one,)))
        memory.keep(Batch((one,)))
        memory.save(made)
        changes.extend(made)

    for index, one in enumerate(things):
        take(one)
        if index in stops:
            engine = memory.restored(RULES, devices, now=one.rx, started=one.rx - CATCH_UP_MS)
            if delivered_again:
                for earlier in things[max(0, index - 2) : index + 1]:
                    take(earlier._replace(rx=one.rx))
    changes += engine.advance(at_the_end(things))
    assert sorted(told(changes)) == sorted(plain(things))


@given(histories, st.integers(1, 14))
@example(  # a redelivery behind the watermark, as steady as it came first, is no clock that was set back
    [
        Said(1, "", {}),
        Said(1, "", {}),
        Said(9_999, "", {"mains": False}),
        Said(1, "", {}, "smoke"),
    ],
    4,
)
def test_a_kill_between_the_records_and_the_series_changes_nothing(history, size):
    """The engine's decisions are durable, the samples behind them are not yet, and the whole batch comes again."""
    things = items(history)
    memory = Memory()
    engine = engine_of()
    lines: list[str] = []
    for start in range(0, len(things), size):
        batch = Batch(tuple(things[start : start + size]))
        made = engine.observe(batch)
        memory.save(made)
        lines += told(made)
        now = batch.items[-1].rx
        engine = memory.restored(RULES, {"here.pile": ("charger", {})}, now=now, started=now - CATCH_UP_MS)
        made = engine.observe(batch)
        memory.keep(batch)
        memory.save(made)
        lines += told(made)
    lines += told(engine.advance(at_the_end(things)))
    assert sorted(lines) == sorted(plain(things))


@given(one_port, st.randoms(use_true_random=False))
def test_nothing_is_over_before_it_began(history, shuffle):
    """Whatever the order of arrival: raise and clear alternate in each group, and time never runs backwards."""
    things = items(history)
    shuffle.shuffle(things)
    engine = engine_of(ONE_RULE)
    changes: list[Change] = []
    for one in things:
        changes += engine.observe(Batch((one,)))
        changes += engine.advance(one.rx + 30_000)
    told_of = [change for change in changes if change.effect != "none"]
    assert [one.effect for one in told_of] == [("raise", "clear")[index % 2] for index in range(len(told_of))]
    for opened, closed in zip(told_of[::2], told_of[1::2], strict=False):
        assert closed.at >= opened.at


def test_late_samples_are_history_but_their_fields_are_known():
    engine = engine_of(ONE_RULE)
    fields: tuple[tuple[int, dict[str, Value]], ...] = ((5_000, {"temp_c": 85.0}), (1_000, {"state": "charging"}))
    for ts, given_fields in fields:
        reading = Reading("here.pile", "charger", "1", BASE + ts, BASE + 6_000, None, given_fields)
        assert told(engine.observe(Batch((reading,)))) == []
    assert engine.late_samples == 1
    reading = Reading("here.pile", "charger", "1", BASE + 7_000, BASE + 7_000, None, {"temp_c": 86.0})
    engine.observe(Batch((reading,)))
    assert told(engine.advance(BASE + 30_000)) == ["17s raise hot/1 P1"]


def test_evidence_tells_what_was_seen_and_when():
    engine = engine_of(ONE_RULE)
    reading = Reading("here.pile", "charger", "1", BASE, BASE + 100, 7, {"temp_c": 85.0, "state": "charging"})
    engine.observe(Batch((reading,)))
    (change,) = engine.advance(BASE + 60_000)
    assert change.evidence == {
        "rule": "hot",
        "version": ONE_RULE.rules[0].version,
        "for_ms": FOR_MS,
        "when": 'temp_c >= 80 and state != "idle"',
        "since": BASE,
        "at": BASE + 10_000,
        "values": {"temp_c": {"value": 85.0, "ts": BASE}, "state": {"value": "charging", "ts": BASE}},
    }


def test_a_device_that_turns_out_to_be_of_another_kind_starts_anew():
    """What a stranger said under its name, timers that were set for it included, is forgotten."""
    engine = engine_of(ONE_RULE)
    reading = Reading("here.pile", "charger", "1", BASE, BASE + 100, None, {"temp_c": 85.0, "state": "charging"})
    engine.observe(Batch((reading,)))
    engine.know_device("here.pile", "elevator", {}, now=BASE + 200)
    assert engine.advance(BASE + 60_000) == []
    lift = Reading("here.pile", "elevator", "", BASE + 60_000, BASE + 60_000, None, {"moving": True})
    assert engine.observe(Batch((lift,))) == []


def standing(changes: Sequence[Change]) -> dict[tuple[str, str], tuple[str, int, int]]:
    """Where every rule was told to stand at last: by (part, rule), state and times. Idle rules are left out."""
    found = {(one.state.part, one.state.rule_id): one.state for one in changes}
    return {key: (one.state, one.since, one.changed) for key, one in found.items() if one.state != "idle"}


def open_at_the_end(changes: Sequence[Change]) -> set[tuple[str, str]]:
    """(part, group) of incidents that are open after these changes."""
    found: dict[tuple[str, str], bool] = {}
    for one in changes:
        if one.effect in ("raise", "clear"):
            found[one.state.part, one.finding.group] = one.effect == "raise"
    return {key for key, is_open in found.items() if is_open}


@given(histories.filter(lambda history: len(history) > 2), st.data())
@example([Said(1, "1", HOT), Said(4_000, "1", {"temp_c": 20.0}), Said(3_000, "1", HOT)], None)
def test_a_message_that_others_overtook_is_put_in_its_place(history, data):
    """Numbered messages that come late, but in time for the deadline: it ends where an orderly delivery ends."""
    things = [one for one in items(history) if one.ts - BASE < 15 * 60_000]
    late = sorted(data.draw(st.sets(st.integers(1, len(things)), max_size=3), label="late") if data else {1})
    late = [index for index in late if index < len(things) - 1]
    order = [index for index in range(len(things)) if index not in late]
    for index in late:
        after = data.draw(st.integers(index + 1, len(things)), label="after") if data else len(things)
        place = sum(1 for other in order if other < after)
        order.insert(place, index)
    engine = engine_of()
    changes: list[Change] = []
    newest = BASE
    for index in order:
        newest = max(newest, things[index].rx)
        changes += engine.observe(Batch((things[index]._replace(rx=newest),)))
    changes += engine.advance(at_the_end(things))
    engine = engine_of()
    orderly = engine.observe(Batch(tuple(things))) + engine.advance(at_the_end(things))
    assert standing(changes) == standing(orderly)
    assert open_at_the_end(changes) == open_at_the_end(orderly)
