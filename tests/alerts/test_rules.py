"""Rules: what is refused, where it is told to be, and what a rule means once it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from alerts.rulebook import digest, load_rules, parse_rules
from alerts.rules import DEADLINE_MS, MUTE_CAP_MS, Flap, Quorum, Rule
from core.errors import NotFound, RuleError
from core.faults import Severity
from tests.servers import ROOT

TITLE = "title: {zh: 热, en: hot}"
HEAD = f"group: heat, severity: P1, {TITLE}"
RULE = f"id: hot, {HEAD}"


def file_of(*entries: str, kind: str = "charger") -> str:
    return f"kind: {kind}\nrules:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries)


def read(*entries: str, kind: str = "charger") -> tuple[Rule, ...]:
    return parse_rules(file_of(*entries, kind=kind), "my.yaml").rules


def refused(text: str) -> str:
    with pytest.raises(RuleError) as caught:
        parse_rules(text, "my.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (f"{RULE}", "hot: give one of 'when', 'event' or 'silence'"),
        (f"id: §Hot, {HEAD}, when: mains", "Hot.id: 'Hot' is no id: lower-case letters, digits and -"),
        (f"id: §hot.p1, {HEAD}, when: mains", "hot.p1.id: 'hot.p1' is no id"),
        (f"{HEAD}, when: mains", "rules: 'id' is missing"),
        (f"{RULE}, when: §mians", "hot.when: unknown field 'mians'; did you mean 'mains'?"),
        (f"{RULE}, when: mains and §mians", "hot.when: unknown field 'mians'"),
        (f"{RULE}, when: 'mains and §mians'", "hot.when: unknown field 'mians'"),
        (f'{RULE}, when: §"mains and \\u006dians"', "hot.when: unknown field 'mians'"),
        (f"{RULE}, when: §1", "hot.when: expected a condition, like temp_c >= 80; this is a number"),
        (f"{RULE}, when: §yes", "hot.when: expected a condition, like temp_c >= 80; this is true or false"),
        (f"{RULE}, when:§ ", "hot.when: expected a condition, like temp_c >= 80; this is nothing"),
        (f"{RULE}, when: mains, clear: §1", "hot.clear: expected a condition"),
        (f'{RULE}, when: mains, clear: "mains and§"', "hot.clear: a value was expected"),
        (f"{RULE}, when: mains, §fro: 3s", "hot: unknown key 'fro'; did you mean 'for'?"),
        (f"{RULE}, when: mains, §For: 3s", "hot: unknown key 'For'; did you mean 'for'?"),
        (f"{RULE}, when: mains, for: §3 parsecs", "hot.for: '3 parsecs' is not a duration"),
        (f"{RULE}, when: mains, for: §30", "hot.for: '30' is not a duration: it needs a unit; did you mean '30s'?"),
        (f"{RULE}, when: mains, for: §400d", "hot.for: '400d' is too long: at most 366d"),
        (f"{RULE}, when: mains, for: §[3s]", "hot.for: expected a duration or a parameter, like 90s; this is a list"),
        (f"{RULE}, when: mains, deadline: soon", "'soon' is not a duration like 90s, nor a parameter of this rule"),
        (f"{RULE}, when: mains, deadline: 0s", "hot.deadline: '0s' is too short: at least 1s"),
        (f"{RULE}, when: mains, for: 3s, §for: 4s", "'for' is given twice; first in line 3"),
        (f"{RULE}, silence: ever", "'ever' is not a duration"),
        (f"{RULE}, silence: 0", "'0s' is too short: at least 1s"),
        (f"{RULE}, silence: 3s, for: §3s", "hot.for: a silence rule has no 'for'"),
        (f"{RULE}, silence: 3s, when: mains", "hot.when: a silence rule has no 'when'"),
        (f"{RULE}, silence: 3s, schedule: '22:00-06:00'", "hot.schedule: a silence rule has no 'schedule'"),
        (f"{RULE}, event: [heat], for: 3s", "hot.for: an event rule has no 'for'"),
        (f"{RULE}, event: [heat], clear: mains", "hot.clear: an event rule has no 'clear'"),
        (f"{RULE}, event: [smoke, §haet]", "hot.event: no such fault of a charger: haet; did you mean 'heat'?"),
        (f"{RULE}, event: [entrapment]", "hot.event: no such fault of a charger: entrapment"),
        (f"{RULE}, event: [7]", "hot.event: expected a name, like [smoke]; this is a number"),
        (f"{RULE}, event: [heat], within: 30s", "hot.within: 'within' is for rules with 'event' and 'when'"),
        (f"{RULE}, when: mains, within: 30s", "hot.within: 'within' is for rules with 'event' and 'when'"),
        (f"{RULE}, when: mains, mute_cap: 1h", "hot.mute_cap: 'mute_cap' needs 'mute_in'"),
        (f"{RULE}, when: mains, needs_clear: true, close: telemetry", "cannot be closed by telemetry"),
        (
            f"{RULE}, when: mains, needs_clear: 1",
            "hot.needs_clear: expected true or false, like true; this is a number",
        ),
        (f"{RULE}, when: mains, close: maybe", "hot.close: 'maybe' is none of person, telemetry"),
        (f"{RULE}, when: mains, part: socket", "hot.part: 'socket' is none of device, port"),
        (f"{RULE}, when: power_w > 1", "unknown field 'power_w'"),
        (f"{RULE}, when: mains, mute_in: [inspection]", "hot.mute_in: a charger has no service mode inspection"),
        (f"{RULE}, when: mains, schedule: 22-6", 'hot.schedule: hours are a start and an end, like "22:00-06:00"'),
        (f"{RULE}, when: mains, flap: {{changes: 1, within: 10m}}", "hot.flap.changes: must be between 2 and 100"),
        (f"{RULE}, when: mains, flap: {{changes: 5}}", "hot.flap: 'within' is missing"),
        (f"{RULE}, when: mains, flap: 5", "hot.flap: expected a mapping, like {changes: 5, within: 10m}"),
        (f"{RULE}, when: mains, ticket: {{servicelevel: a}}", "hot.ticket: unknown key 'servicelevel'; did you mean"),
        (f"{RULE}, when: mains, share: 50%", "hot: unknown key 'share'"),
        (f"{RULE}, when: mains, what_to_do: {{zh: 断电}}", "hot.what_to_do: 'en' is missing"),
        (f"{RULE}, when: mains, enabled: maybe", "hot.enabled: expected true or false"),
        (f"id: hot, group: g, severity: P9, {TITLE}, when: mains", "hot.severity: 'P9' is none of P0, P1, P2, P3, P4"),
        ("id: hot, group: g, severity: P1, title: {zh: '', en: hot}, when: mains", "hot.title.zh: must have 1 to 200"),
        (
            f"id: hot, group: g, severity: P1, title: {{zh: 热, en: {'x' * 201}}}, when: mains",
            "hot.title.en: must have",
        ),
        ("id: hot, group: g, severity: P1, title: hot, when: mains", "hot.title: expected a mapping, like {zh:"),
        (f"id: hot, severity: P1, {TITLE}, when: mains", "hot: 'group' is missing"),
    ],
)
def test_a_faulty_rule_is_refused_and_its_place_named(entry: str, told: str):
    """§ stands before the place that the message must name."""
    line = file_of(entry).split("\n")[2]
    message = refused(file_of(entry).replace("§", ""))
    assert all(one.startswith("my.yaml:3:") for one in message.split("\n"))
    assert told in message
    if "§" in line:
        assert f"my.yaml:3:{line.index('§') + 1}: {told}" in message


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (f"{RULE}, when: moving, mute_in: [party]", "an elevator has no service mode party; known: "),
        (f"{RULE}, when: moving, part: port", "an elevator has no ports"),
        (f"{RULE}, when: moving and power_w > 3", "unknown field 'power_w'"),
    ],
)
def test_a_lift_is_no_pile(entry: str, told: str):
    assert told in refused(file_of(entry, kind="elevator"))


LADDER = "id: hot, part: port, group: heat, title: {zh: 热, en: hot}, when: temp_c >= 80, for: 30s, clear: temp_c < 70"


@pytest.mark.parametrize(
    ("severity", "told"),
    [
        ("[P2, {severity: P2, when: temp_c >= 90}]", "each step must be more urgent than the one before; P2 after P2"),
        ("[P1, {severity: P2, when: temp_c >= 90}]", "P2 after P1"),
        ("[P2, {severity: P0, when: temp_c >= 90}, {severity: P1, when: temp_c > 99}]", "P1 after P0"),
        ("[P2, P1]", "expected a mapping, like {severity: P1, when: temp_c >= 90}; this is a text"),
        ("[P2, {severity: P1}]", "hot.severity: 'when' is missing"),
        ("[P2, {severity: P1, when: tmep_c > 3}]", "hot.severity.when: unknown field 'tmep_c'; did you mean 'temp_c'?"),
        ("[P2, {severity: P1, when: mains, for: ten}]", "hot.severity.for: 'ten' is not a duration"),
        ("[P2, {severity: P1, when: mains, title: x}]", "hot.severity: unknown key 'title'"),
        ("[]", "hot.severity: 'a list' is none of P0"),
    ],
)
def test_a_faulty_ladder(severity: str, told: str):
    assert told in refused(file_of(f"{LADDER}, severity: {severity}"))


@pytest.mark.parametrize("trigger", ["silence: 3s", "event: [heat]", "event: [heat], when: mains"])
def test_a_ladder_needs_a_condition_of_its_own(trigger: str):
    severity = "[P2, {severity: P1, when: mains}]"
    entry = f"id: hot, group: heat, severity: {severity}, {TITLE}, {trigger}"
    assert "a ladder is for rules with 'when' and no 'event'" in refused(file_of(entry))


def test_a_ladder_is_further_rules_of_the_group():
    steps = "{severity: P1, when: temp_c >= 90, for: 10s}, {severity: P0, when: temp_c >= 99, clear: temp_c < 95}"
    extra = "mute_cap: 1h, schedule: '22:00-06:00', flap: {changes: 3, within: 1m}, keep_firing_for: 7s"
    entry = f"{LADDER}, severity: [P2, {steps}], {extra}".replace("mute_cap: 1h, ", "")
    base, first, second = read(entry)
    assert [rule.id for rule in (base, first, second)] == ["hot", "hot.p1", "hot.p0"]
    assert [rule.finding.severity for rule in (base, first, second)] == [Severity.P2, Severity.P1, Severity.P0]
    assert [rule.for_ms for rule in (base, first, second)] == [30_000, 10_000, 30_000]
    assert [rule.clear and rule.clear.text for rule in (base, first, second)] == ["temp_c < 70", None, "temp_c < 95"]
    own = {"id", "finding", "version", "when", "for_ms", "clear", "watched"}
    for step in (first, second):
        assert step.finding == base.finding._replace(rule_id=step.id, severity=step.finding.severity)
        assert all(getattr(step, name) == getattr(base, name) for name in Rule._fields if name not in own)
        assert step.watched == {"temp_c"}
    assert len({base.version, first.version, second.version}) == 3


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (f"{RULE}, silence: 10m", "hot: 'share' is missing"),
        (f"{RULE}, share: 50%", "hot: 'silence' is missing"),
        (f"{RULE}, silence: 10m, share: 0.5", "hot.share: '0.5' is no share of the devices"),
        (f"{RULE}, silence: 10m, share: 0%", "'0%' is no share"),
        (f"{RULE}, silence: 10m, share: 101%", "'101%' is no share"),
        (f"{RULE}, silence: 10m, share: 50%, at_least: 0", "hot.at_least: must be between 1 and"),
        (f"{RULE}, silence: 10m, share: 50%, when: mains", "hot: unknown key 'when'"),
        (f"{RULE}, silence: 10m, share: 50%, event: [smoke]", "hot: unknown key 'event'"),
        (f"{RULE}, silence: 10m, share: 50%, part: port", "hot: unknown key 'part'"),
        (
            f"id: hot, group: g, {TITLE}, silence: 10m, share: 50%, severity: [P3, {{severity: P2, when: mains}}]",
            "a ladder is for rules with 'when'",
        ),
    ],
)
def test_a_faulty_rule_of_a_site(entry: str, told: str):
    assert told in refused(file_of(entry, kind="site"))


def test_a_rule_of_a_site():
    book = parse_rules(file_of(f"{RULE}, silence: 10m, share: 62.5%, clear_for: 1m", kind="site"), "my.yaml")
    (rule,) = book.rules
    assert (rule.kind, rule.quorum, rule.silence_ms, rule.clear_for_ms) == ("site", Quorum(0.625, 3), 600_000, 60_000)
    assert book.rules_for("site", device_id="fenghe.*", model=None) == (rule,)
    assert book.rules_for("charger", device_id="fenghe.a", model=None) == ()


def test_all_keys_arrive_in_the_rule():
    (rule,) = read(
        f"{RULE}, when: mains, for: 5s, clear: not mains, clear_for: 1m, keep_firing_for: 2m, deadline: 1h,"
        " schedule: {days: mon, hours: '08:00-18:00'}, flap: {changes: 5, within: 10m}, reopen_within: 30m,"
        " needs_clear: true, ticket: {service_level: rescue, checklist: heat}, what_to_do: {zh: 断电, en: cut}"
    )
    assert (rule.for_ms, rule.clear_for_ms, rule.keep_ms, rule.deadline_ms) == (5_000, 60_000, 120_000, 3_600_000)
    assert rule.flap == Flap(5, 600_000)
    assert rule.schedule is not None
    assert not rule.plain
    assert (rule.finding.reopen_ms, rule.finding.needs_clear) == (1_800_000, True)
    assert rule.finding.ticket == {"service_level": "rescue", "checklist": "heat"}
    assert rule.finding.what_to_do == ("断电", "cut")


def test_defaults():
    (rule,) = read(f"{RULE}, part: port, when: temp_c > 1")
    assert (rule.for_ms, rule.clear, rule.deadline_ms, rule.mute_in) == (0, None, DEADLINE_MS, frozenset())
    assert (rule.clear_for_ms, rule.keep_ms, rule.mute_cap_ms, rule.within_ms) == (0, 0, MUTE_CAP_MS, 0)
    assert (rule.schedule, rule.flap, rule.quorum, rule.inhibited_by) == (None, None, None, frozenset())
    assert (rule.finding.close, rule.finding.needs_clear, rule.finding.reopen_ms) == ("person", False, 0)
    assert rule.watched == {"temp_c"}
    assert rule.plain


def test_what_a_rule_watches():
    (rule,) = read(f"{RULE}, when: occupied and not moving, clear: door_zone, mute_in: inspection", kind="elevator")
    assert rule.watched == {"occupied", "moving", "door_zone", "service_mode"}
    (rule,) = read(f'{RULE}, part: port, when: active("relay_welded") and power_w > 1')
    assert rule.watched_faults == {"relay_welded"}
    (rule,) = read(f"{RULE}, event: smoke, when: mains, within: 30s, mute_in: []")
    assert (set(rule.events), rule.within_ms) == ({"smoke"}, 30_000)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("for: 60s", "for: 1m", True),
        ("for: 60s", "for: 61s", False),
        ("clear: not mains", "clear: not  mains", True),
        ("clear: not mains", "clear: mains", False),
        ("title: {zh: 热, en: hot}", "title: {zh: 热, en: warm}", True),
        ("schedule: '22:00-06:00'", "schedule: '22:00-06:30'", False),
        ("schedule: '22:00-06:00'", "schedule: {days: mon-sun, hours: '22:00-06:00'}", True),
        ("flap: {changes: 5, within: 10m}", "flap: {changes: 6, within: 10m}", False),
        ("reopen_within: 1m", "reopen_within: 2m", False),
        ("for: hold, params: {hold: 60s}", "for: 60s", True),
        ("keep_firing_for: 1s", "clear_for: 1s", False),
        ("ticket: {checklist: a}", "ticket: {checklist: b}", True),
    ],
)
def test_the_version_changes_with_what_decides(one: str, other: str, same: bool):
    def version(extra: str) -> str:
        title = "" if extra.startswith("title") else f"{TITLE}, "
        (rule,) = read(f"id: hot, group: heat, severity: P1, {title}when: mains, {extra}")
        return rule.version

    assert (version(one) == version(other)) is same


def test_a_disabled_rule_is_checked_and_left_out():
    book = parse_rules(file_of(f"{RULE}, when: mains, enabled: false"), "my.yaml")
    assert book.rules == ()
    assert [(source.rule_id, source.enabled) for source in book.sources] == [("hot", False)]
    assert "unknown field" in refused(file_of(f"{RULE}, when: mians, enabled: false"))


# --- several rules ---------------------------------------------------------------------------------------------------


def grouped(rule_id: str, group: str, extra: str = "") -> str:
    return f"id: {rule_id}, group: {group}, severity: P1, {TITLE}, when: mains{extra}"


def test_inhibition_names_groups_and_rules():
    rules = read(
        grouped("a", "one"),
        grouped("b", "two", ", inhibited_by: [one]"),
        grouped("c", "three", ", inhibited_by: [b, one]"),
        grouped("d", "four", ", inhibited_by: a"),
    )
    assert [rule.inhibited_by for rule in rules] == [set(), {"one"}, {"two", "one"}, {"one"}]


def test_a_site_can_hold_back_its_devices(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(file_of(grouped("a", "one", ", inhibited_by: [site-dark]")))
    (tmp_path / "b.yaml").write_text(
        file_of(f"id: dark, group: site-dark, severity: P2, {TITLE}, silence: 5m, share: 50%", kind="site")
    )
    assert load_rules(tmp_path).rules[0].inhibited_by == {"site-dark"}


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([grouped("a", "one", ", inhibited_by: [oen]")], "there is no group or rule 'oen'; did you mean 'one'?"),
        ([grouped("a", "one", ", inhibited_by: [one]")], "in a circle: one -> one"),
        ([grouped("a", "one"), grouped("b", "one", ", inhibited_by: [a]")], "in a circle: one -> one"),
        (
            [grouped("a", "one", ", inhibited_by: [two]"), grouped("b", "two", ", inhibited_by: [a]")],
            "a.inhibited_by: groups hold each other back in a circle: one -> two -> one",
        ),
        (
            [
                grouped("a", "one", ", inhibited_by: [two]"),
                grouped("b", "two", ", inhibited_by: [three]"),
                grouped("c", "three"),
                grouped("d", "three", ", inhibited_by: [a]"),
            ],
            "d.inhibited_by: groups hold each other back in a circle: three -> one -> two -> three",
        ),
    ],
)
def test_a_faulty_inhibition(entries: list[str], told: str):
    assert told in refused(file_of(*entries))


def test_rules_of_a_group_agree_on_how_it_closes():
    """Else a fault that a person must look at could be closed by the telemetry of its neighbour."""
    message = refused(file_of(grouped("one", "heat", ", close: telemetry"), grouped("two", "heat", ", close: person")))
    assert message.startswith("my.yaml:4:")
    assert "two.close: group 'heat' of charger: some rules close by telemetry and some by a person" in message


def test_an_id_is_used_once(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(file_of(grouped("one", "heat")))
    (tmp_path / "b.yaml").write_text(file_of(grouped("two", "heat"), grouped("one", "heat")))
    with pytest.raises(RuleError, match=r"^b\.yaml:4:10: one\.id: rule id 'one' is used already at a\.yaml:3$"):
        load_rules(tmp_path)


def test_too_many_rules(tmp_path: Path):
    assert "more than 1,000 rules" in refused(file_of(*(grouped(f"r{n}", "g") for n in range(1001))))
    for name in ("a", "b"):
        text = file_of(*(grouped(f"{name}{n}", "g") for n in range(501)))
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(RuleError, match="more than 1,000 rules in all files together"):
        load_rules(tmp_path)


# --- folders ---------------------------------------------------------------------------------------------------------


def test_everything_wrong_in_all_files_is_told_at_once_and_in_order(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(file_of(f"id: one, {HEAD}, when: smoke > 1", f"id: two, {HEAD}, event: [x]"))
    (tmp_path / "b.yaml").write_text(file_of(f"id: three, {HEAD}", "id: four"))
    (tmp_path / "c.yaml").write_text("kind: [")
    (tmp_path / "d.yaml").write_text(file_of(f"id: five, {HEAD}, when: mains", f"id: five, {HEAD}, when: not mains"))
    (tmp_path / "e.yaml").write_bytes(b"kind: \xff\n")
    (tmp_path / "f.yaml").mkdir()
    (tmp_path / "g.yml").write_text("")
    with pytest.raises(RuleError) as caught:
        load_rules(tmp_path)
    lines = str(caught.value).split("\n")
    starts = ["a.yaml:3:73: one.when: ", "a.yaml:4:75: two.event: ", "b.yaml:3:5: three: "]
    starts += [f"b.yaml:4:5: four: '{key}' is missing" for key in ("group", "severity", "title")]
    starts += [
        "b.yaml:4:5: four: give one of",
        "c.yaml:1:8: not YAML: ",
        "d.yaml:4:10: five.id: rule id 'five' is used",
    ]
    starts += ["e.yaml:1:7: not UTF-8: ", "f.yaml:1:1: cannot be read: ", "g.yml:1:1: rule files end in .yaml"]
    for start in starts:
        assert any(line.startswith(start) for line in lines), start
    assert len(lines) == len(starts)
    places = [(line.split(":")[0], int(line.split(":")[1])) for line in lines]
    assert places == sorted(places)


def test_an_empty_folder_is_no_rule_folder(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RuleError, match="no rule files"):
            load_rules(folder)
        with pytest.raises(RuleError, match="no rule files"):
            digest(folder)


def test_the_digest_changes_with_any_content(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(file_of(grouped("one", "heat")))
    first = load_rules(tmp_path)
    assert first.digest == digest(tmp_path)
    (tmp_path / "notes.txt").write_text("not a rule file")
    assert digest(tmp_path) == first.digest
    (tmp_path / "b.yaml").write_text(file_of(grouped("two", "heat")))
    second = digest(tmp_path)
    (tmp_path / "b.yaml").rename(tmp_path / "c.yaml")
    assert len({first.digest, second, digest(tmp_path)}) == 3


def test_a_byte_order_mark_is_no_content(tmp_path: Path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbf" + file_of(grouped("one", "heat")).encode())
    assert [rule.id for rule in load_rules(tmp_path)] == ["one"]


def test_the_default_rules():
    book = load_rules(ROOT / "deploy" / "rules")
    assert {rule.kind for rule in book} >= {"charger", "elevator"}
    assert len(book) == len(book.rules) == len({rule.id for rule in book})
    for kind in ("charger", "elevator"):
        mine = book.rules_for(kind, device_id="fenghe.x", model="any")
        assert mine == tuple(rule for rule in book if rule.kind == kind)
        assert mine is book.rules_for(kind, device_id="xinyuan.y", model=None)
    assert book.rules_for("spaceship", device_id="fenghe.x", model=None) == ()
    with pytest.raises(NotFound):
        book.parameters("port-cold", device_id="fenghe.x", model=None)
