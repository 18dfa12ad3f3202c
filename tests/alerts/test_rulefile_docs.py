"""The page about rule files names every key and function, its examples are good rules, and `rules check` says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alerts.cli import rules_app
from alerts.expression import compile_condition
from alerts.functions import FUNCTIONS
from alerts.params import OVERRIDE_KEYS
from alerts.rulebook import load_rules, parse_rules
from alerts.rulekeys import FILE_KEYS, FLAP_KEYS, RULE_KEYS, SITE_RULE_KEYS, STEP_KEYS, TICKET_KEYS
from alerts.units import DURATIONS_MS, MEASURES, duration_ms
from alerts.windows import step_ms
from core.errors import ExpressionError
from core.faults import FAULTS
from core.kinds import KINDS, all_fields, part_fields
from tests.servers import ROOT

PAGE = (ROOT / "docs" / "rule-files.md").read_text(encoding="utf-8")
KEYS, _, CONDITIONS = PAGE.partition("\n## Conditions\n")
ROWS = dict(re.findall(r"^\| `([a-z_]+)` \| (.*) \|$", KEYS, re.MULTILINE))
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_key_has_a_row_and_every_row_is_a_key():
    keys = {*FILE_KEYS, *RULE_KEYS, *SITE_RULE_KEYS}
    assert set(ROWS) == keys


def test_keys_inside_of_keys_are_named():
    for table in (OVERRIDE_KEYS, FLAP_KEYS, STEP_KEYS, TICKET_KEYS):
        for key in table:
            assert re.search(rf"\b{key}\b", PAGE), key


@pytest.mark.parametrize("block", BLOCKS)
def test_every_example_is_a_file_that_can_be_read(block: str):
    assert parse_rules(block, "example.yaml").rules


HEAD = "group: g, severity: P2, title: {zh: 热, en: hot}"
TRIGGERS = {
    "event": "",
    "silence": "",
    "within": "event: [smoke], when: mains, ",
    "mute_cap": "when: moving, mute_in: [inspection], ",
    "mute_in": "when: moving, ",
    "params": "when: mains, for: hold, ",
}


@pytest.mark.parametrize("key", [key for key in ROWS if key not in FILE_KEYS])
def test_the_example_of_a_row_is_accepted(key: str):
    example = re.findall(r"`([^`]*)`", ROWS[key])[0]
    assert example.startswith(f"{key}: ")
    kind = "elevator" if key.startswith("mute") else "charger"
    entry = ""
    if key in ("share", "at_least"):
        kind, entry = "site", "silence: 5m, " + ("share: 50%, " if key == "at_least" else "")
    elif key == "inhibited_by":
        entry = "when: mains, "
    else:
        entry = "" if key == "when" else TRIGGERS.get(key, "when: mains, ")
    if re.search(r"temp_c", example):
        entry += "part: port, "
    head = ", ".join(part for part in re.split(r", (?![^{]*})", HEAD) if not part.startswith(f"{key}:"))
    own = "" if key == "id" else "id: x, "
    text = f"kind: {kind}\nrules:\n  - {{{own}{entry}{head}, {example}}}\n"
    text += (
        f"  - {{id: other, when: mains, {HEAD.replace('group: g', 'group: offline')}}}\n" if kind == "charger" else ""
    )
    assert parse_rules(text, "example.yaml").sources


# --- conditions ------------------------------------------------------------------------------------------------------


def table(head: str) -> list[list[str]]:
    """The rows of the table whose first column is called that, as cells."""
    (found,) = re.findall(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", CONDITIONS, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found.splitlines()]


def compiles(text: str, kind: str) -> bool:
    faults = frozenset(name for name, fault in FAULTS.items() if fault.kind == kind)
    try:
        compile_condition(text, all_fields(kind), faults, ports=part_fields(kind))
    except ExpressionError:
        return False
    return True


def test_every_function_has_a_row_and_every_row_is_a_function():
    assert sorted(row[0].strip("`").partition("(")[0] for row in table("function")) == sorted(FUNCTIONS)


OPERATORS = "operators, those that bind most first"


@pytest.mark.parametrize(("head", "example"), [[cell.strip("`") for cell in row[:2]] for row in table("function")])
def test_the_example_of_a_function_is_a_condition_with_it(head: str, example: str):
    assert f"{head.partition('(')[0]}(" in example
    assert any(compiles(example, kind) for kind in KINDS)


@pytest.mark.parametrize("example", [row[1].strip("`") for row in table(OPERATORS)])
def test_the_example_of_an_operator_is_a_condition(example: str):
    assert any(compiles(example, kind) for kind in KINDS)


def test_every_suffix_of_a_number_is_told():
    told = " ".join(row[0] for row in table("suffix of a number"))
    assert set(re.findall(r"`([^`]+)`", told)) == {*DURATIONS_MS, *MEASURES}


def test_the_buckets_are_as_long_as_told():
    ((_, *buckets),) = table("window")
    (head,) = re.findall(r"^\| window \|(.*)\|$", CONDITIONS, re.MULTILINE)
    windows = [cell.strip() for cell in head.split("|")]
    told = {window: duration_ms(bucket) for window, bucket in zip(windows, buckets, strict=True)}
    assert told == {window: step_ms(duration_ms(window) or 0) for window in windows}


# --- tizhuang rules check --------------------------------------------------------------------------------------------


def test_check_lists_the_rules_of_a_folder():
    folder = ROOT / "deploy" / "rules"
    result = CliRunner().invoke(rules_app, ["check", str(folder)])
    assert result.exit_code == 0, result.output
    head, *rows, total = result.stdout.splitlines()
    assert head.split() == ["rule", "kind", "severity", "for", "parameters", "overrides", "file"]
    assert [row.split()[0] for row in rows] == [source.rule_id for source in load_rules(folder).sources]
    assert total == f"ok: {len(rows)} rules in {len(list(folder.glob('*.yaml')))} files"


def test_check_without_a_folder_takes_that_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.yaml").write_text(BLOCKS[0], encoding="utf-8")
    (tmp_path / "overrides.yaml").write_text("overrides: []\n", encoding="utf-8")
    monkeypatch.setenv("TIZHUANG_ALERTS__RULES", str(tmp_path))
    result = CliRunner().invoke(rules_app, ["check"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].endswith("rules in 2 files")


def test_check_tells_every_flaw_and_fails(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("kind: charger\nrules:\n  - {id: x}\n  - {id: Y}\n", encoding="utf-8")
    result = CliRunner().invoke(rules_app, ["check", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "a.yaml:3:5: x: 'group' is missing\n" in result.stderr
    assert "a.yaml:4:10: Y.id: 'Y' is no id" in result.stderr
    assert CliRunner().invoke(rules_app, ["check", str(tmp_path / "nowhere")]).exit_code == 1


@pytest.mark.parametrize(
    ("extra", "shown"),
    [
        ("when: mains, for: 90s", "P2 90s 0 0"),
        ("when: mains, for: 1500ms", "P2 1500ms 0 0"),
        ("when: mains", "P2 - 0 0"),
        ("silence: 48h", "P2 2d 0 0"),
        ("when: mains, enabled: false", "disabled - 0 0"),
        ("when: mains, for: hold, params: {hold: 60m}", "P2 1h 1 1"),
    ],
)
def test_what_check_shows_of_a_rule(tmp_path: Path, extra: str, shown: str):
    text = f"kind: charger\nrules:\n  - {{id: x, {HEAD}, {extra}}}\n"
    text += "overrides:\n  - {rule: x, site: a, params: {hold: 1m}}\n" if "params" in extra else ""
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    result = CliRunner().invoke(rules_app, ["check", str(tmp_path)])
    assert result.stdout.splitlines()[1].split() == ["x", "charger", *shown.split(), "a.yaml:3"]
