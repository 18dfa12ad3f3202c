"""Rule files: what is refused, and that all of it is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from alerts.rules import DEADLINE_MS, load_rules, parse_rules
from core.errors import RuleError

TITLE = "title: {zh: 热, en: hot}"
HEAD = f"group: heat, severity: P1, {TITLE}"


def refused(entry: str, kind: str = "charger") -> str:
    with pytest.raises(RuleError) as caught:
        parse_rules(f"kind: {kind}\nrules:\n  - {entry}\n", "my.yaml")
    message = str(caught.value)
    assert all(line.startswith("my.yaml: ") for line in message.split("\n")), "every line names the file"
    return message


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (f"{{id: hot, {HEAD}}}", "give one of 'when', 'event' or 'silence'"),
        (f"{{id: Hot, {HEAD}, when: mains}}", "rules.0.id"),
        (f"{{id: hot, {HEAD}, when: mians}}", "hot: column 1: when: unknown field 'mians'; did you mean 'mains'?"),
        (f"{{id: hot, {HEAD}, when: mains, clear: 1}}", "clear"),
        (f'{{id: hot, {HEAD}, when: mains, clear: "mains and"}}', "hot: column 10: clear: a value was expected"),
        (f"{{id: hot, {HEAD}, when: mains, fro: 3s}}", "rules.0.fro: Extra inputs are not permitted"),
        (f"{{id: hot, {HEAD}, when: mains, for: 3 parsecs}}", "'3 parsecs' is not a duration"),
        (f"{{id: hot, {HEAD}, when: mains, deadline: soon}}", "'soon' is not a duration"),
        (f"{{id: hot, {HEAD}, silence: ever}}", "'ever' is not a duration"),
        (f"{{id: hot, {HEAD}, silence: 3s, for: 3s}}", "a silence rule has no"),
        (f"{{id: hot, {HEAD}, silence: 3s, when: mains}}", "a silence rule has no"),
        (f"{{id: hot, {HEAD}, event: [heat], for: 3s}}", "an event rule has no"),
        (f"{{id: hot, {HEAD}, event: [heat], clear: mains}}", "an event rule has no"),
        (f"{{id: hot, {HEAD}, event: [haet]}}", "no such fault of a charger: haet"),
        (f"{{id: hot, {HEAD}, event: [entrapment]}}", "no such fault of a charger: entrapment"),
        (f"{{id: hot, {HEAD}, when: mains, needs_clear: true, close: telemetry}}", "cannot be closed by telemetry"),
        (f"{{id: hot, {HEAD}, when: mains, close: maybe}}", "rules.0.close"),
        (f"{{id: hot, {HEAD}, when: mains, part: socket}}", "rules.0.part"),
        (f"{{id: hot, {HEAD}, when: power_w > 1}}", "unknown field 'power_w'"),
        (f"{{id: hot, {HEAD}, when: mains, mute_in: [inspection]}}", "a charger has no service mode inspection"),
        (f"{{id: hot, group: g, severity: P9, {TITLE}, when: mains}}", "rules.0.severity"),
        ("{id: hot, group: g, severity: P1, title: {zh: '', en: hot}, when: mains}", "rules.0.title.zh"),
        (f"{{id: hot, group: g, severity: P1, title: {{zh: 热, en: {'x' * 201}}}, when: mains}}", "rules.0.title.en"),
        ("{id: hot, group: g, severity: P1, title: hot, when: mains}", "rules.0.title"),
        (f"{{id: hot, severity: P1, {TITLE}, when: mains}}", "rules.0.group: Field required"),
        ("hot", "rules.0"),
    ],
)
def test_a_faulty_rule_is_refused(entry: str, told: str):
    assert told in refused(entry)


@pytest.mark.parametrize(
    "text",
    ["", "kind: charger", "kind: charger\nrules: []\nextra: 1", "- 1", "kind: spaceship\nrules: []", "{", "a: &a [*a]"],
)
def test_a_file_that_is_no_rule_file(text: str):
    with pytest.raises(RuleError, match=r"^my\.yaml: ") as caught:
        parse_rules(text, "my.yaml")
    assert "\n\n" not in str(caught.value)


def test_a_mode_that_no_lift_has():
    assert "a elevator has no service mode party" in refused(
        f"{{id: x, {HEAD}, when: moving, mute_in: [party]}}", "elevator"
    )


def test_everything_wrong_in_all_files_is_told_at_once(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(
        f"kind: charger\nrules:\n  - {{id: one, {HEAD}, when: smoke > 1}}\n  - {{id: two, {HEAD}, event: [x]}}\n"
    )
    (tmp_path / "b.yaml").write_text(f"kind: charger\nrules:\n  - {{id: three, {HEAD}}}\n  - {{id: four}}\n")
    (tmp_path / "c.yaml").write_text("kind: [")
    (tmp_path / "d.yaml").write_text(
        f"kind: charger\nrules:\n  - {{id: five, {HEAD}, when: mains}}\n  - {{id: five, {HEAD}, when: not mains}}\n"
    )
    (tmp_path / "e.yaml").write_bytes(b"kind: \xff\n")
    with pytest.raises(RuleError) as caught:
        load_rules(tmp_path)
    lines = str(caught.value).split("\n")
    for start in ("a.yaml: one", "a.yaml: two", "b.yaml: rules.0", "b.yaml: rules.1.group", "c.yaml: not YAML"):
        assert any(line.startswith(start) for line in lines), start
    assert any(line.startswith("e.yaml: ") for line in lines)
    assert "rule id 'five' is used 2 times" in lines


def test_rules_of_a_group_agree_on_how_it_closes(tmp_path: Path):
    """Else a fault that a person must look at could be closed by the telemetry of its neighbour."""
    (tmp_path / "a.yaml").write_text(
        f"kind: charger\nrules:\n  - {{id: one, {HEAD}, when: mains, close: telemetry}}\n"
        f"  - {{id: two, {HEAD}, when: not mains, close: person}}\n"
    )
    with pytest.raises(RuleError, match="group 'heat' of charger: some rules close by telemetry and some by a person"):
        load_rules(tmp_path)


def test_an_empty_folder_is_no_rule_folder(tmp_path: Path):
    with pytest.raises(RuleError, match="no rule files"):
        load_rules(tmp_path)
    with pytest.raises(RuleError, match="no rule files"):
        load_rules(tmp_path / "nowhere")


def test_defaults():
    (rule,) = parse_rules(f"kind: charger\nrules:\n  - {{id: one, {HEAD}, part: port, when: temp_c > 1}}", "a.yaml")
    assert (rule.for_ms, rule.clear, rule.deadline_ms, rule.mute_in) == (0, None, DEADLINE_MS, frozenset())
    assert (rule.finding.close, rule.finding.needs_clear) == ("person", False)
    assert rule.watched == {"temp_c"}
