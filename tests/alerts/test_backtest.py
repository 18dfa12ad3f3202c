"""Backtests: what is left out changes nothing, devices may be judged apart, and two runs are compared rightly."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer import Typer
from typer.testing import CliRunner

from alerts.backtest import Chosen, Known, Opening, Play, Thinner, affected, compared, cuts, fields_of
from alerts.backtest_report import report
from alerts.backtest_run import Asked, backtest, without
from alerts.cli_backtest import backtest_rules, instant, written
from alerts.rulebook import RuleBook, parse_rules
from core.errors import SettingsError
from core.reading import Batch, Event, Reading, Value
from core.settings import Data, Settings
from storage.duckdb import DuckDbSeries
from storage.history import Item, order

T = 1_790_000_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE

RULES = """
kind: charger
rules:
  - {id: hot, part: port, group: heat, severity: P1, title: {zh: 热, en: Hot}, when: temp_c >= 80, for: 30s,
     clear: temp_c < 70}
  - id: live
    part: port
    group: live
    severity: P2
    title: {zh: 电, en: Live}
    when: state == "idle" and power_w > 10 and mains
    for: 5m
    clear_for: 2m
    inhibited_by: [silent]
  - {id: silent, group: silent, severity: P3, title: {zh: 静, en: Silent}, silence: 3m, close: telemetry}
  - {id: smoke, group: fire, severity: P0, title: {zh: 烟, en: Smoke}, event: [smoke]}
"""
TIMED = """
  - {id: rising, part: port, group: heat, severity: P2, title: {zh: 升, en: Rising}, when: "delta(temp_c, 5m) > 5"}
"""
HOTTER = RULES.split("  - id: live", maxsplit=1)[0].replace(">= 80", ">= 75")
OTHER = """
  - {id: other, severity: P4, group: other, title: {zh: 别, en: Other}, when: not mains}
"""


def sample(ts: int, fields: dict[str, Value], part: str = "1", device: str = "here.pile") -> Reading:
    return Reading(device, "charger", part, ts, ts + 40, None, fields)


def played(
    items: Iterable[Item],
    *texts: str,
    end: int = T + 6 * HOUR,
    thin: bool = True,
    register: Iterable[str] = ("here.pile",),
) -> list[list[Opening]]:
    devices = {device_id: Known("charger", {}) for device_id in register}
    play = Play([parse_rules(text, "rules.yaml") for text in texts], devices, start=T, end=end)
    if not thin:
        play._thinner._hold_ms = dict.fromkeys(play._thinner._hold_ms, 0)
    play.feed(items)
    return play.finish()


@st.composite
def histories(draw: st.DrawFn) -> list[Item]:
    """A pile that repeats itself most of the time, with pauses of all lengths, in whole and in partial snapshots."""
    at = T
    items: list[Item] = []
    said: dict[str, dict[str, Value]] = {"1": {"temp_c": 60.0}, "2": {"temp_c": 85.0}, "": {"mains": True}}
    for number in range(draw(st.integers(1, 60))):
        at += draw(st.sampled_from([1_000, 20_000, 60_000, 60_000, 170_000, 181_000, 400_000, 599_000, 601_000]))
        for part in draw(st.sampled_from([["", "1", "2"], ["1"], ["2"], [""], ["1", "2"]])):
            if draw(st.integers(0, 4)) == 0:
                known: dict[str, st.SearchStrategy[Value]] = {"mains": st.booleans()} if not part else {
                    "temp_c": st.sampled_from([60.0, 72.0, 85.0]),
                    "power_w": st.sampled_from([0.0, 20.0]),
                    "state": st.sampled_from(["idle", "charging"]),
                }  # fmt: skip
                said[part] = draw(st.fixed_dictionaries({}, optional=known))
            items.append(sample(at, dict(said[part]), part))
        if draw(st.integers(0, 9)) == 0:
            raised = draw(st.booleans())
            items.append(Event("here.pile", "charger", "", at, at, None, f"e{number}", "dny", "1", "smoke", raised))
    return sorted(items, key=order)


@settings(max_examples=150)
@given(histories(), st.sampled_from([RULES, RULES + TIMED, RULES + OTHER]))
def test_what_is_left_out_changes_nothing(items: list[Item], text: str):
    assert played(items, text) == played(items, text, thin=False)


def test_repeats_are_left_out():
    items = [sample(T + 10_000 * number, {"temp_c": 60.0}) for number in range(100)]
    thinner = Thinner([parse_rules(RULES, "rules.yaml")])
    told: list[Item] = []
    for item in items:
        told += thinner.due(item.ts)
        told += thinner.take(item)
    told += thinner.rest()
    assert len(told) < 10
    assert (told[0], told[-1]) == (items[0], items[-1])
    assert max(two.ts - one.ts for one, two in pairwise(told)) < 3 * MINUTE
    timed = Thinner([parse_rules(RULES + TIMED, "rules.yaml")])
    assert [one for item in items for one in timed.take(item)] == items


@settings(max_examples=60)
@given(histories(), histories())
def test_devices_may_be_judged_apart(first: list[Item], second: list[Item]):
    others = [one._replace(device_id="there.pile") for one in second]
    both = {"here.pile": first, "there.pile": others}
    together = played(sorted([*first, *others], key=order), RULES, register=both)[0]
    apart = [one for device, items in both.items() for one in played(items, RULES, register=[device])[0]]
    assert together == sorted(apart, key=lambda one: (one.at, one.key, one.rule_id))


def test_device_time_is_the_clock_and_ends_at_the_end():
    """A backlog is no silence and not late; `for` is over by time alone, but not after the end."""
    backlog = [sample(T + MINUTE * number, {"temp_c": 60.0})._replace(rx=T + 5 * HOUR) for number in range(100)]
    assert played(backlog, RULES, end=T + 100 * MINUTE) == [[]]
    hot = [sample(T, {"temp_c": 90.0})]
    assert played(hot, RULES, end=T + 30_000) == [[]]
    (found,) = played(hot, RULES, end=T + 32_000)
    assert [(one.rule_id, one.at, one.ended) for one in found] == [("hot", T + 30_000, None)]


def opening(at: int, ended: int | None = None, rule_id: str = "hot", device: str = "here.pile") -> Opening:
    return Opening(device, "1", "heat", rule_id, "P1", at, ended)


@pytest.mark.parametrize(
    ("today", "other", "expected"),
    [
        ([], [], []),
        ([opening(1, 5)], [], [(1, None)]),
        ([], [opening(1)], [(None, 1)]),
        ([opening(1, 5)], [opening(3, 9)], [(1, 3)]),
        ([opening(1, 5)], [opening(6, 9)], [(1, None), (None, 6)]),
        ([opening(1, 5), opening(7, 9)], [opening(2, None)], [(1, 2), (7, None)]),
        ([opening(1, None)], [opening(1, 2), opening(4, 5)], [(1, 1), (None, 4)]),
        ([opening(1, None)], [opening(1, device="here.other")], [(None, 1), (1, None)]),
    ],
)
def test_which_incident_is_which(
    today: list[Opening], other: list[Opening], expected: list[tuple[int | None, int | None]]
):
    found = [(one.today and one.today.at, one.other and one.other.at) for one in compared(today, other)]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_only_what_may_differ_is_judged_again():
    def book(text: str) -> RuleBook:
        return parse_rules(text, "rules.yaml")

    assert affected(book(RULES), book(RULES)) == frozenset()
    assert affected(book(RULES), book(RULES + OTHER)) == {"other"}
    assert affected(book(RULES), book(RULES + TIMED)) == {"hot", "rising"}
    assert affected(book(RULES), book(RULES.replace("silence: 3m", "silence: 4m"))) == {"silent", "live"}
    chosen = Chosen(book(RULES + OTHER), {"other"})
    assert [rule.id for rule in chosen] == ["other"]
    rules = chosen.rules_for("charger", device_id="here.pile", model=None)
    assert [rule.id for rule in rules] == ["other"]
    assert chosen.rules_for("charger", device_id="here.other", model=None) is rules
    assert fields_of([chosen]) == {"mains", "service_mode"}


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from([f"{s}.d{n}" for s in "abc" for n in range(6)]), st.integers(0, 100)),
    st.integers(1, 4),
)
def test_every_device_is_in_one_share(devices: dict[str, int], parts: int):
    for whole_sites in (False, True):
        shares = list(cuts(devices, parts, whole_sites=whole_sites))
        assert sorted(one for share in shares for one in share) == sorted(devices)
        if whole_sites:
            sites = [{one.partition(".")[0] for one in share} for share in shares]
            assert sum(map(len, sites)) == len(set().union(*sites))


def test_rules_are_cut_out_of_a_file_and_the_rest_stays():
    text = "# first\n" + RULES.lstrip() + TIMED.lstrip("\n") + "overrides:\n  - {rule: hot, site: here, params: {}}\n"
    assert without(text, []) == text
    for gone in ({"hot"}, {"live"}, {"rising"}, {"hot", "smoke"}):
        left = parse_rules(without(text, gone).partition("overrides:")[0], "x.yaml")
        expected = [rule.id for rule in parse_rules(RULES + TIMED, "x.yaml") if rule.id not in gone]
        assert [rule.id for rule in left] == expected
    everything = without(RULES, {"hot", "live", "silent", "smoke"})
    assert len(parse_rules(everything, "x.yaml")) == 0


# --- the whole way ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder and a folder of rules: two piles that get hot, one of them only a little."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "charger.yaml").write_text(RULES, encoding="utf-8")
    (tmp_path / "try.yaml").write_text(HOTTER, encoding="utf-8")
    store = DuckDbSeries(tmp_path / "series.duckdb")
    items: list[Item] = []
    for number in range(180):
        at = T + number * MINUTE
        for device, most in (("here.pile", 90.0), ("there.pile", 77.0)):
            items.append(sample(at, {"temp_c": most if 60 <= number < 90 else 40.0}, device=device))
            items.append(sample(at, {"mains": True}, part="", device=device))
    store.write(Batch(tuple(items)))
    store.close()
    return tmp_path


def asked(folder: Path, *, other: bool = False, **more: int) -> Asked:
    facts = {"start": T, "end": T + 3 * HOUR, "lead_ms": 0} | more
    return Asked(folder / "rules", folder / "try.yaml" if other else None, every=False, **facts)


@pytest.mark.parametrize("processes", [1, 2])
def test_two_runs_and_their_difference(folder: Path, processes: int):
    shares: list[float] = []
    result = backtest(
        Settings(data=Data(dir=folder)), asked(folder, other=True), {}, processes=processes, progress=shares.append
    )
    assert result.rule_ids == ["hot"]
    assert result.items == 4 * 180
    (hot,) = result.rules
    assert (hot.opened, hot.devices, hot.standing, hot.median_s) == (2, 2, 0, 1_770)
    assert result.differences is not None
    (difference,) = result.differences
    assert (difference.new, difference.gone, difference.same, difference.earlier) == (1, 0, 1, 0)
    assert difference.examples[0].device_id == "there.pile"
    assert all(0 <= share <= 1 for share in shares)


def test_the_lead_in_is_played_and_not_told(folder: Path):
    """What stood already when the time began opened before it."""
    settings = Settings(data=Data(dir=folder))
    begun = T + 70 * MINUTE
    assert sum(one.opened for one in backtest(settings, asked(folder, start=begun), {}).rules) == 1
    assert sum(one.opened for one in backtest(settings, asked(folder, start=begun, lead_ms=HOUR), {}).rules) == 0


def test_some_devices_only(folder: Path):
    settings = Settings(data=Data(dir=folder))
    result = backtest(settings, asked(folder), {}, chosen=lambda one: one == "there.pile")
    assert (result.devices, sum(one.opened for one in result.rules)) == (1, 0)


def test_a_registered_device_that_said_nothing_is_silent(folder: Path):
    settings = Settings(data=Data(dir=folder))
    result = backtest(settings, asked(folder), {"here.dead": Known("charger", {})})
    silent = next(one for one in result.rules if one.rule_id == "silent")
    assert [one.device_id for one in silent.examples] == ["here.dead"]


def run(folder: Path, *words: str):
    app = Typer()
    app.command()(backtest_rules)
    told = [
        "--from",
        written(T).replace(" ", "T"),
        "--to",
        written(T + 3 * HOUR).replace(" ", "T"),
        "--data",
        str(folder),
    ]
    return CliRunner().invoke(app, [*told, "--rules", str(folder / "rules"), "--lead-in", "0s", *words])


def test_the_command_prints_a_table_and_the_difference(folder: Path):
    found = run(folder, "--rule", str(folder / "try.yaml"))
    assert found.exit_code == 0, found.output
    assert "720 readings and events of 2 devices, 1 rules" in found.output
    assert "new: hot: there.pile port 1" in found.output


def test_the_command_prints_json(folder: Path):
    found = run(folder, "--json", "--device", "here.pile")
    result = json.loads(found.stdout)
    assert {one["rule_id"]: one["opened"] for one in result["rules"]} == {"hot": 1, "live": 0, "silent": 0, "smoke": 0}
    assert result["differences"] is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rule", "nowhere.yaml"], "cannot be read"),
        (["--to", "yesterday"], "is no time"),
        (["--to", "2020-01-01"], "is not before"),
        (["--lead-in", "long"], "--lead-in"),
        (["--rules", "."], "no rule files"),
    ],
)
def test_a_wrong_word_is_one_plain_line(folder: Path, words: Sequence[str], told: str):
    found = run(folder, *words)
    assert found.exit_code == 1
    assert told in found.output
    assert "Traceback" not in found.output


def test_a_fault_in_the_file_is_told_with_its_place(folder: Path):
    (folder / "try.yaml").write_text(HOTTER.replace("temp_c >= 75", "temp_x >= 75"), encoding="utf-8")
    found = run(folder, "--rule", str(folder / "try.yaml"))
    assert found.exit_code == 1
    assert "try.yaml:4:" in found.output


def test_times_as_people_write_them():
    assert instant("2h", T) == T - 2 * HOUR
    assert instant("2026-09-21T22:13:20", T) == T
    assert instant("2026-09-21T14:13:20+00:00", T) == T
    assert written(T) == "2026-09-21 22:13:20"
    with pytest.raises(SettingsError):
        instant("soon", T)


def test_a_book_without_rules_has_nothing_to_tell():
    book = parse_rules("kind: charger\nrules: []\n", "x.yaml")
    result = report([book], [[]], start_ms=T, end_ms=T + 1, items=0, devices=0)
    assert result.rules == []
