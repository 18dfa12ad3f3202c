"""Files of test cases: what they say, what is wrong with them and where, and the commands that play and write them."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from alerts.caseexport import Story, as_case
from alerts.casefile import load_cases, parse_cases
from alerts.cli import rules_app
from alerts.engine import Engine
from alerts.player import WAYS, Said, Wall, difference, instant_ms, line_of, written
from alerts.rulebook import load_rules, parse_rules
from alerts.shorthand import value_of, values_of
from core.errors import RuleError
from core.kinds import all_fields
from core.reading import Batch, Event, Reading
from storage.duckdb import DuckDbSeries
from storage.incidents import Incident, Incidents
from storage.records import address, open_records
from storage.registry import Registry
from tests.servers import ROOT

RULES = """\
kind: charger
rules:
  - {id: leak, group: leak, severity: P1, title: {zh: 漏电, en: leakage}, when: leakage_ma >= 30, for: 30s}
  - {id: hot, part: port, group: heat, severity: P2, title: {zh: 热, en: hot}, when: temp_c >= 80}
  - {id: smoke, group: fire, severity: P0, title: {zh: 烟, en: smoke}, event: [smoke]}
"""
BOOK = parse_rules(RULES, "charger.yaml")
SPECS = all_fields("charger") | all_fields("elevator")
BASE = 1_790_000_000_000


def cases_of(text: str) -> Any:
    return parse_cases(dedent(text), "my.yaml", lambda _: BOOK).cases


def one(steps: str, extra: str = "") -> Any:
    (case,) = cases_of(f"kind: charger\ncases:\n  - {{about: it, steps: {steps}, expect: [], {extra}}}\n")
    return case


# --- short-hand ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("70 80*3", "temp_c", [70, 80, 80, 80]),
        ("20 +2*3", "temp_c", [20, 22, 24, 26]),
        ("20 +0.1*3", "temp_c", [20, 20.1, 20.2, 20.3]),
        ("20 +-5*2 -5*2", "temp_c", [20, 15, 10, -5, -5]),
        ("20 _ _*2 +1", "temp_c", [20, None, None, None, 21]),
        ("closed open*2", "door", ["closed", "open", "open"]),
        ("true false", "moving", [True, False]),
        ("1 +1*2", "trips", [1, 2, 3]),
        ("", "temp_c", []),
    ],
)
def test_shorthand(text: str, field: str, values: list[Any]):
    found = values_of(text, SPECS[field], 1_000)
    assert found == values
    assert [type(one) for one in found] == [
        type(value_of(one, SPECS[field])) if one is not None else type(None) for one in values
    ]


def test_stale_is_just_long_enough():
    spec = SPECS["temp_c"]
    gaps = values_of("20 stale 20", spec, 60_000).count(None)
    assert (gaps - 1) * 60_000 <= spec.stale_ms < gaps * 60_000


@pytest.mark.parametrize(
    ("text", "field", "told"),
    [
        ("80x3", "temp_c", "repeats are written 80*3"),
        ("hot", "temp_c", "'hot' is no number"),
        ("+2", "temp_c", "goes on from a number"),
        ("20 +x", "temp_c", "is no step"),
        ("ajar", "door", "one of closed, open"),
        ("yes", "moving", "not true or false"),
        ("1.5", "trips", "cannot be a value of trips"),
        ("nan", "temp_c", "cannot be a value"),
        ("1*999999", "temp_c", "more than 100,000 values"),
        ("true stale", "online", "never too old"),
    ],
)
def test_faulty_shorthand(text: str, field: str, told: str):
    with pytest.raises(ValueError, match=told.replace("*", r"\*")):
        values_of(text, SPECS[field], 1_000)


@given(st.integers(0, 10**12))
def test_times_are_read_as_they_are_written(ms: int):
    assert instant_ms(written(ms)) == ms


@pytest.mark.parametrize("text", ["", "20", "s", "20 s", "1h-5m", "-5s", "20s!"])
def test_no_times(text: str):
    with pytest.raises(ValueError, match="no time"):
        instant_ms(text)


@pytest.mark.parametrize(
    "text",
    [
        "20s raise port-hot/3@pile-2 P1 late (late-data)",
        "1h5m ease port-hot.p1 P2",
        "0.5s clear site-dark@* (rule-deleted)",
        "2s raise leak P0 (still-true)",
    ],
)
def test_lines_are_read_as_they_are_written(text: str):
    assert str(line_of(text)) == text


@pytest.mark.parametrize(
    "text", ["", "20s raise leak", "20s clear leak P1", "20s opens leak P1", "x raise leak P1", "20s raise leak P9"]
)
def test_no_lines(text: str):
    with pytest.raises(ValueError, match="is no"):
        line_of(text)


# --- what a file says ------------------------------------------------------------------------------------------------


def test_steps_become_messages():
    case = one(
        """[
        {at: 1s, send: {mains: true}, ports: {1: {temp_c: 20}, 2: {temp_c: 30}}},
        {at: 2s, rx: 9s, port: 3, event: relay_welded raised, id: a, seq: 7},
        {wall: 10s, listening: false},
        {wall: 11s, restart: true}]"""
    )
    head = ("here.device", "charger")
    snapshot, event, away, kill = case.steps
    assert snapshot == Said(
        (
            Reading(*head, "", BASE + 1_000, BASE + 1_100, None, {"mains": True}),
            Reading(*head, "1", BASE + 1_000, BASE + 1_100, None, {"temp_c": 20.0}),
            Reading(*head, "2", BASE + 1_000, BASE + 1_100, None, {"temp_c": 30.0}),
        )
    )
    assert event == Said(
        (Event(*head, "3", BASE + 2_000, BASE + 9_000, 7, "a", "dny", "port-9", "relay_welded", True),)
    )
    assert away == Wall(BASE + 10_000, listening=False)
    assert kill == Wall(BASE + 11_000, restart=True)


def test_series_next_to_each_other_run_at_the_same_time():
    case = one(
        """[
        {series: {from: 0s, every: 2s, port: 1, temp_c: "20 _ 30"}},
        {series: {from: 1s, every: 2s, leakage_ma: 1 2}}]"""
    )
    said = [((step.items[0].ts - BASE) // 1000, step.items[0].part, dict(step.items[0].fields)) for step in case.steps]
    assert said == [
        (0, "1", {"temp_c": 20}),
        (1, "", {"leakage_ma": 1}),
        (3, "", {"leakage_ma": 2}),
        (4, "1", {"temp_c": 30}),
    ]


def test_numbers_follow_device_time():
    case = one("[{at: 1s, send: {}}, {at: 5s, send: {}}, {at: 3s, rx: 6s, send: {}}]", "numbered: true")
    assert [step.items[0].seq for step in case.steps] == [0, 2, 1]


def test_second_zero_is_by_the_clock_of_the_site():
    case = one("[{at: 1h, send: {}}]", "zone: Europe/Berlin, start: '2026-03-29T01:30'")
    assert (case.start, case.steps[0].items[0].ts) == (1_774_744_200_000, 1_774_747_800_000)


FAULTY = [
    ("{wall: 1s, restrat: true}", "4:18: cases[0].steps[0]: unknown key 'restrat'; did you mean 'restart'?"),
    (
        "{at: 1s, send: {leakage: 3}}",
        "4:23: cases[0].steps[0].send: unknown field 'leakage'; did you mean 'leakage_ma'?",
    ),
    ("{at: 1s, send: {leakage_ma: much}}", "4:35: cases[0].steps[0].send: 'much' is no number"),
    ("{at: soon, send: {}}", "4:12: cases[0].steps[0].at: 'soon' is no time"),
    ("{at: 1s}", "4:7: cases[0].steps[0]: a step has 'send'"),
    (
        "{at: 1s, event: smok raised}",
        "4:23: cases[0].steps[0].event: kind charger has no code or fault 'smok'; did you mean 'smoke'?",
    ),
    ("{at: 1s, event: smoke}", "4:23: cases[0].steps[0].event: 'smoke' is no event"),
    ("{at: 1s, device: lift-9, send: {}}", "4:24: cases[0].steps[0]: 'lift-9' is none of the case's 'devices'"),
    ("{at: 1s, ports: {0: {}}}", "4:24: cases[0].steps[0].ports: '0' is no port"),
    ("{wall: 1s, reload: other}", "4:26: cases[0].steps[0]: no 'other_rules' are called 'other'"),
    ("series: {from: 0s, every: 0s, temp_c: 1}", "4:33: cases[0].steps[0].series: 'every' must be longer than 0s"),
    ("series: {from: 0s, every: 1s, port: 1, temp_c: 1 x}", "'x' is no number"),
]


@pytest.mark.parametrize(("step", "told"), FAULTY)
def test_a_faulty_step_is_refused_and_its_place_named(step: str, told: str):
    with pytest.raises(RuleError) as refused:
        cases_of(f"kind: charger\ncases:\n- {{about: it, expect: [], steps: [\n      {step}]}}\n")
    assert told in str(refused.value)
    assert str(refused.value).startswith("my.yaml:4:")


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("{about: it, steps: [{wall: 1s}]}", "my.yaml:3:3: cases[0]: 'expect' is missing"),
        (
            "{STEPS, expect: [1s raise leek P1]}",
            "my.yaml:3:45: cases[0]: there is no rule 'leek'; did you mean 'leak'?",
        ),
        ("{STEPS, expect: [], quiet: [leek]}", "my.yaml:3:56: cases[0]: there is no rule 'leek'"),
        ("{STEPS, expect: [leak fires]}", "my.yaml:3:45: cases[0].expect: 'leak fires' is no line like"),
        ("{STEPS, expect: [], zone: Mars}", "cases[0].zone: 'Mars' is no time zone"),
        ("{STEPS, expect: [], start: noon}", "cases[0].start: 'noon' is no time"),
        ("{STEPS, expect: [], known_fault: {restart: x}}", "unknown key 'restart'; did you mean 'restarts'?"),
        ("{STEPS, expect: [], kind: boat}", "cases[0].kind: 'boat' is none of"),
    ],
)
def test_a_faulty_case_is_refused_and_its_place_named(case: str, told: str):
    with pytest.raises(RuleError) as refused:
        cases_of(f"kind: charger\ncases:\n- {case}\n".replace("STEPS", "about: it, steps: [{wall: 1s}]"))
    assert told in str(refused.value)


def test_all_faults_are_told_at_once():
    with pytest.raises(RuleError) as refused:
        one("[{at: x, send: {}}, {wall: y}]", "quiet: [leek]")
    assert len(str(refused.value).split("\n")) == 3


@given(st.text(max_size=80))
def test_any_text_is_cases_or_a_fault_with_a_place(text: str):
    try:
        cases = parse_cases(text, "my.yaml", lambda _: BOOK).cases
    except RuleError as error:
        told = str(error).split("\n")
    else:
        told = ["my.yaml:"] if cases == () else []
    assert {line.partition(":")[0] for line in told} == {"my.yaml"}


# --- rules in the file of the cases ----------------------------------------------------------------------------------

OWN = """\
# about leakage
rules:
  site:
    - {id: dark, group: dark, severity: P2, title: {zh: 断, en: dark}, silence: 5m, share: 50%}
  charger:
  - {id: leak, group: leak, severity: P1, title: {zh: 漏电, en: leakage}, when: WHEN, inhibited_by: [dark]}

  # by site
  overrides:
    - {rule: leak, site: here, params: {limit: 20}}
kind: charger
cases:
  - {about: it, steps: [{at: 0s, send: {leakage_ma: 25}}], expect: [0s raise leak P1]}
"""


def test_rules_of_several_kinds_and_overrides_stand_in_the_file():
    text = OWN.replace("inhibited_by: [dark]", "inhibited_by: [dark], params: {limit: 30}").replace(
        "WHEN", "leakage_ma >= limit"
    )
    (case,) = parse_cases(text, "my.yaml", lambda _: BOOK).cases
    assert [rule.id for rule in case.book] == ["dark", "leak"]
    assert difference(case, "plain") == ""


def test_faults_of_such_rules_are_told_at_their_place():
    with pytest.raises(RuleError) as refused:
        parse_cases(OWN.replace("WHEN", "leekage_ma > 3"), "my.yaml", lambda _: BOOK)
    assert "my.yaml (charger):6:79: leak.when: unknown field 'leekage_ma'" in str(refused.value)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("rules: {charger: []}", "my.yaml:1:9: 'charger:' must stand on a line of its own"),
        ("rules:\n  boat: []", "my.yaml:2:3: unknown kind 'boat'"),
        ("rules: []", "my.yaml:1:8: rules stand by kind"),
    ],
)
def test_rules_that_cannot_be_read(rules: str, told: str):
    with pytest.raises(RuleError) as refused:
        cases_of(f"{rules}\nkind: charger\ncases:\n  - {{about: it, steps: [{{wall: 1s}}], expect: []}}\n")
    assert str(refused.value).startswith(told)


# --- the commands ----------------------------------------------------------------------------------------------------

GOOD = "{about: leaking, steps: [{at: 0s, send: {leakage_ma: 40}}, {wall: 60s}], expect: [30s raise leak P1]}"
BAD = "{about: wrong, steps: [{at: 0s, send: {leakage_ma: 40}}, {wall: 60s}], expect: [31s raise leak P1]}"
CALM = "{about: calm, steps: [{at: 0s, send: {leakage_ma: 1}}], expect: [], quiet: [leak, hot, smoke]}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "charger.yaml").write_text(RULES, encoding="utf-8")
    return tmp_path


def write(folder: Path, *cases: str, name: str = "a.yaml") -> Path:
    path = folder / "tests" / name
    path.write_text("kind: charger\ncases:\n" + "".join(f"  - {case}\n" for case in cases), encoding="utf-8")
    return path


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(rules_app, [str(word) for word in words])
    return done.exit_code, done.output


def test_cases_beside_the_rules_are_no_rules(folder: Path):
    write(folder, GOOD)
    assert [rule.id for rule in load_rules(folder)] == ["leak", "hot", "smoke"]


def test_passing_and_what_no_case_tries(folder: Path):
    write(folder, GOOD, CALM)
    code, output = run("test", folder / "tests")
    assert (code, output.splitlines()) == (
        0,
        ["warning: no case makes hot fire", "warning: no case makes smoke fire", "2 of 2 cases passed"],
    )


def test_failing_says_what_came_instead(folder: Path):
    path = write(folder, GOOD, BAD)
    code, output = run("test", path)
    assert code == 1
    assert output.splitlines()[:3] == [
        "a.yaml:4:5: FAILED: wrong",
        "    - 31s raise leak P1",
        "    + 30s raise leak P1",
    ]
    assert output.splitlines()[-1] == "1 of 2 cases passed"


def test_a_file_with_faults_keeps_the_others_from_nothing(folder: Path):
    write(folder, GOOD)
    write(folder, "{about: it}", name="b.yaml")
    code, output = run("test", folder / "tests")
    assert code == 1
    assert "b.yaml:3:5: cases[0]: 'steps' is missing" in output
    assert output.splitlines()[-1] == "1 of 1 cases passed; 1 files cannot be read"


def test_a_known_fault_that_is_none_any_more_is_told(folder: Path):
    known = GOOD.replace("{about", "{known_fault: {plain: it is not stamped right}, about")
    path = write(folder, known, BAD.replace("{about", "{known_fault: {plain: it is not}, about"))
    code, output = run("test", path)
    assert code == 1
    assert "it passes: take 'known_fault: {plain: ...}' away" in output
    assert output.splitlines()[-1] == "1 of 2 cases passed"


def test_a_folder_without_cases(folder: Path):
    assert run("test", folder / "tests") == (1, f"no test cases (*.yaml) in {folder / 'tests'}\n")


def test_rules_named_by_the_file_or_by_the_command(folder: Path, tmp_path: Path):
    case = f"kind: charger\ncases:\n  - {GOOD}\n"
    lonely = tmp_path / "cases.txt"
    lonely.write_text(case, encoding="utf-8")
    assert "neither 'rules' nor 'folder'" in run("test", lonely)[1]
    assert run("test", lonely, "--rules", folder)[0] == 0
    lonely.write_text(f"folder: .\n{case}", encoding="utf-8")
    assert run("test", lonely)[0] == 0


# --- export ----------------------------------------------------------------------------------------------------------

TS = 1_795_312_800_000


def incident(**facts: Any) -> Incident:
    known: dict[str, Any] = {
        "id": 17,
        "device_id": "fenghe.pile-3",
        "part": "",
        "fault_group": "leak",
        "rule_id": "leak",
        "severity": "P1",
        "title_zh": "漏电",
        "title_en": "leakage",
        "what_to_do_zh": "",
        "what_to_do_en": "",
        "needs_clear": False,
        "opened_device_ms": TS + 90_000,
        "opened": TS + 90_200,
        "late": False,
        "evidence": {"since": TS + 60_000, "when": "leakage_ma >= 30"},
        "cleared_device_ms": TS + 120_000,
        "closed": None,
        "outcome": None,
        "previous_id": None,
        "reopened": 0,
        "reason": "",
        "rule_version": "abc",
    }
    return Incident(**(known | facts))


def said(anonymous_order: str = "O-1") -> list[Reading | Event]:
    head = ("fenghe.pile-3", "charger")
    values = [(0, 1.0), (60, 40.0), (90, 40.0), (120, 2.0)]
    found: list[Reading | Event] = [
        Reading(*head, "", TS + 1_000 * at, TS + 1_000 * at + 130, at, {"leakage_ma": ma, "vendor_x": 1})
        for at, ma in values
    ]
    found.insert(1, Reading(*head, "2", TS, TS + 130, 0, {"temp_c": 21.5, "order": anonymous_order}))
    return [
        *found,
        Event(*head, "", TS + 125_000, TS + 125_100, 126, "fenghe-e", "dny", "alarm-7", "cabinet_door", True),
    ]


def exported(folder: Path, *, anonymous: bool = False) -> str:
    story = Story.around(incident(), 60_000)
    devices: dict[str, Any] = {"fenghe.pile-3": ("charger", {"model": "D-1", "ports": 12, "street": "Fenghe Road"})}
    return as_case(story, devices, "Asia/Shanghai", said(), folder, anonymous=anonymous)


def test_from_before_it_was_true_until_after_its_end():
    story = Story.around(incident(), 60_000)
    assert (story.start, story.end) == (TS, TS + 180_001)
    long = Story.around(incident(cleared_device_ms=TS + 10**9), 60_000)
    assert long.end == TS + 150_001


def test_an_exported_case_plays_as_it_says(folder: Path):
    text = exported(folder)
    (case,) = parse_cases(text, "my.yaml", lambda _: BOOK).cases
    assert case.expect == ("90s raise leak P1", "120s clear leak")
    assert next(iter(case.devices)) == "fenghe.pile-3"
    assert case.start == TS
    assert [difference(case, way) for way in WAYS] == ["", "", ""]
    assert "vendor_x" not in text
    assert "order: O-1" in text
    assert [rule.id for rule in case.book] == ["leak"]


def test_an_anonymous_one_names_nobody(folder: Path):
    text = exported(folder, anonymous=True)
    (case,) = parse_cases(text, "my.yaml", lambda _: BOOK).cases
    assert case.expect == ("90s raise leak P1", "120s clear leak")
    assert "fenghe" not in text.lower()
    assert "O-1" not in text
    assert next(iter(case.devices.values())).statics == {"model": "D-1", "ports": 12}


def test_overrides_come_along_under_the_name_of_the_case(folder: Path):
    limited = RULES.replace("leakage_ma >= 30, for: 30s", "leakage_ma >= limit, for: 30s, params: {limit: 30}")
    other = "  - {rule: leak, site: xinyuan, params: {limit: 1}}\n"
    site = "  - {rule: leak, site: fenghe, params: {limit: 35}}\n"
    device = "  - {rule: leak, device: fenghe.pile-3, params: {limit: 50}}\n"
    (folder / "charger.yaml").write_text(f"{limited}overrides:\n{other}{site}", encoding="utf-8")
    assert "90s raise leak P1" in exported(folder, anonymous=True)
    (folder / "charger.yaml").write_text(f"{limited}overrides:\n{other}{site}{device}", encoding="utf-8")
    for anonymous in (False, True):
        text = exported(folder, anonymous=anonymous)
        (case,) = parse_cases(text, "my.yaml", lambda _: BOOK).cases
        assert case.expect == ()
        assert ("xinyuan" in text, "fenghe" in text) == (False, not anonymous)


def test_what_cannot_be_exported(folder: Path):
    story = Story.around(incident(fault_group="gone"), 60_000)
    devices: dict[str, Any] = {"fenghe.pile-3": ("charger", {})}
    with pytest.raises(RuleError, match="rules of the group 'gone' are no longer in"):
        as_case(story, devices, None, said(), folder)
    with pytest.raises(RuleError, match="nothing is stored any more"):
        as_case(story, devices, None, [], folder)


@pytest.fixture
def data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder in which incident 1 is what the engine made of what was said."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TIZHUANG_ALERTS__RULES", str(folder))
    (folder / "data").mkdir()
    batch = Batch(tuple(said()))
    series = DuckDbSeries(folder / "data" / "series.duckdb")
    assert series.write(batch) == []
    series.close()
    engine = Engine(load_rules(folder))
    engine.know_device("fenghe.pile-3", "charger", {}, now=TS)
    records = open_records(address("", folder / "data"))
    Registry(records).heard([("fenghe.pile-3", "charger")], now=TS)
    Incidents(records).apply(engine.observe(batch), now=TS + 200_000)
    records.close()
    return folder / "data"


def test_export_out_of_a_data_folder(data: Path):
    code, text = run("export", 1, "--data", data, "--minutes", 1)
    assert code == 0, text
    (case,) = parse_cases(text, "my.yaml", lambda _: BOOK).cases
    assert case.expect == ("90s raise leak P1", "120s clear leak")
    assert text.startswith("# Incident 1, rule leak of version ")
    (data.parent / "tests" / "exported.yaml").write_text(text, encoding="utf-8")
    assert run("test", data.parent / "tests" / "exported.yaml", "--every-way")[0] == 0


def test_what_the_command_cannot_export(data: Path):
    assert run("export", 2, "--data", data) == (1, "there is no incident '2'\n")
    code, told = run("export", 1, "--data", data / "elsewhere")
    assert (code, "name the data folder with --data" in told) == (1, True)


def test_the_default_cases_lie_beside_the_default_rules():
    files = [load_cases(path) for path in sorted((ROOT / "deploy/rules/tests").glob("*.yaml"))]
    assert files
    assert not any(file.own_rules for file in files)
